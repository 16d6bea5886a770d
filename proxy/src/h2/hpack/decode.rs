//! Blocks into fields (RFC 7541 3 and 6).

use super::{
    DEFAULT_TABLE_SIZE, HpackError,
    table::{FIRST_DYNAMIC, Table, static_field},
};
use crate::field::{huffman, integer};

/// Most memory a scratch buffer keeps from one block to the next.
const MOST_SCRATCH: usize = 4096;

/// Decodes the blocks of one connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    most: usize,
    /// Where a name is decoded to, or copied to from the table before that changes; and where a value is.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// For a connection on which SETTINGS_HEADER_TABLE_SIZE is this toward the peer. The table begins with
    /// [`DEFAULT_TABLE_SIZE`] all the same: the peer may send blocks before it sees the setting, and says
    /// itself when it goes by that (RFC 7541 4.2). So this is the most the peer can choose then.
    pub fn new(max_table_size: usize) -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE_SIZE),
            most: max_table_size,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Calls `field` with the name and value of each field of a whole block: that of HEADERS with what
    /// CONTINUATION added. Both slices live only during the call. It goes on to the end of the block whatever
    /// the caller thinks of a field, as the table has to learn all of them.
    ///
    /// One octet can stand for a field as large as the table, so the caller counts what it keeps.
    ///
    /// # Errors
    ///
    /// [`HpackError`] when the block is malformed; the decoder cannot be used any more then.
    pub fn decode(&mut self, block: &[u8], field: impl FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        let result = self.fields(block, field);
        for scratch in [&mut self.name, &mut self.value] {
            if scratch.capacity() > MOST_SCRATCH {
                *scratch = Vec::new();
            }
        }
        result
    }

    fn fields(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        let mut rest = self.size_updates(block)?;
        while let Some(&first) = rest.first() {
            let (kept, prefix) = match first {
                0x80.. => {
                    let (name, value) = indexed(&self.table, integer::take(&mut rest, 7)?)?;
                    field(name, value);
                    continue;
                }
                0x40.. => (true, 6),
                0x20.. => return Err(HpackError::TableSize),
                // Also one never to be indexed (RFC 7541 6.2.3): that concerns who encodes it again.
                _ => (false, 4),
            };
            let name = match integer::take(&mut rest, prefix)? {
                0 => string(&mut rest, &mut self.name)?,
                index => name(&self.table, index, &mut self.name)?,
            };
            let value = string(&mut rest, &mut self.value)?;
            field(name, value);
            if kept {
                self.table.insert(name, value);
            }
        }
        Ok(())
    }

    /// Obeys the size updates that a block begins with, and returns what is behind them.
    fn size_updates<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], HpackError> {
        let mut rest = block;
        while let Some(0x20..0x40) = rest.first() {
            let size = integer::take(&mut rest, 5)?;
            if size > self.most {
                return Err(HpackError::TableSize);
            }
            self.table.resize(size);
        }
        Ok(rest)
    }
}

/// The field of that index in either table.
#[inline]
fn indexed(table: &Table, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
    let field = match index.checked_sub(FIRST_DYNAMIC) {
        Some(age) => table.get(age),
        None => static_field(index),
    };
    field.ok_or(HpackError::Index)
}

/// The name of that index in either table, which may be changed then.
fn name<'a>(table: &Table, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], HpackError> {
    if let Some((name, _)) = static_field(index) {
        return Ok(name);
    }
    let (name, _) = indexed(table, index)?;
    scratch.clear();
    scratch.extend_from_slice(name);
    Ok(scratch)
}

/// Takes a string off the front of the input (RFC 7541 5.2), decoded to `scratch` if it has to be.
fn string<'a, 'block: 'a>(
    input: &mut &'block [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], HpackError> {
    let is_huffman = input.first().is_some_and(|&first| first & 0x80 != 0);
    let length = integer::take(input, 7)?;
    let (text, rest) = input.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *input = rest;
    if !is_huffman {
        return Ok(text);
    }
    huffman::decode(text, scratch)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(String, String)>;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(name), text(value)));
        })?;
        Ok(fields)
    }

    fn table(decoder: &Decoder) -> String {
        let entries = (0..decoder.table.len()).map(|age| decoder.table.get(age).unwrap());
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        entries.map(|(name, value)| format!("{}: {}\n", text(name), text(value))).collect()
    }

    /// Blocks one after the other on one connection: each in hex, its fields, and the table then.
    fn check(limit: usize, blocks: &[(&str, &str, &str)]) {
        let mut decoder = Decoder::new(DEFAULT_TABLE_SIZE);
        if limit != DEFAULT_TABLE_SIZE {
            decoder.table.resize(limit);
        }
        for (block, fields, expected) in blocks {
            let found = decoded(&mut decoder, &hex(block)).unwrap();
            let found: String = found.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            assert_eq!(&found, fields);
            assert_eq!(&table(&decoder), expected);
        }
    }

    #[test]
    fn single_fields_of_the_rfc() {
        let custom = "custom-key: custom-header\n";
        check(4096, &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", custom, custom)]);
        check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", "")]);
        check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", "")]);
        check(4096, &[("82", ":method: GET\n", "")]);
    }

    #[test]
    fn requests_of_the_rfc() {
        let start = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
        let second = format!("{start}cache-control: no-cache\n");
        let third = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
                     custom-key: custom-value\n";
        let tables = [
            ":authority: www.example.com\n",
            "cache-control: no-cache\n:authority: www.example.com\n",
            "custom-key: custom-value\ncache-control: no-cache\n:authority: www.example.com\n",
        ];
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let [one, two, three] = blocks;
            check(4096, &[(one, start, tables[0]), (two, &second, tables[1]), (three, third, tables[2])]);
        }
    }

    #[test]
    fn responses_of_the_rfc() {
        let date = "date: Mon, 21 Oct 2013 20:13:21 GMT\n";
        let rest = format!("cache-control: private\n{date}location: https://www.example.com\n");
        let one = format!(":status: 302\n{rest}");
        let two = format!(":status: 307\n{rest}");
        let later = "date: Mon, 21 Oct 2013 20:13:22 GMT\n";
        let location = "location: https://www.example.com\n";
        let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n";
        let three = format!(
            ":status: 200\ncache-control: private\n{later}{location}content-encoding: gzip\n{cookie}"
        );
        let tables = [
            format!("{location}{date}cache-control: private\n:status: 302\n"),
            format!(":status: 307\n{location}{date}cache-control: private\n"),
            format!("{cookie}content-encoding: gzip\n{later}"),
        ];
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
                 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
                 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
                 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
                 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
                 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
                 4ee5 b106 3d50 07",
            ],
        ] {
            let expected = [(&one, &tables[0]), (&two, &tables[1]), (&three, &tables[2])];
            let rows: Vec<_> = blocks
                .iter()
                .zip(expected)
                .map(|(block, (fields, table))| (*block, &fields[..], &table[..]))
                .collect();
            check(256, &rows);
        }
    }

    #[test]
    fn size_updates() {
        let kept = hex("400161 0162");
        let refused = Err(HpackError::TableSize);
        let mut decoder = Decoder::new(4096);
        decoded(&mut decoder, &kept).unwrap();
        // Down to 0 and up again at once, then as the RFC allows with no field behind it.
        assert_eq!(decoded(&mut decoder, &[&hex("20 3fe11f")[..], &kept].concat()).unwrap().len(), 1);
        assert_eq!((decoder.table.len(), decoder.table.limit()), (1, 4096));
        assert_eq!(decoded(&mut decoder, &hex("3f02")), Ok(vec![]));
        assert_eq!((decoder.table.len(), decoder.table.limit()), (0, 33));
        assert_eq!(decoded(&mut decoder, &hex("be")), Err(HpackError::Index));
        assert_eq!(decoded(&mut decoder, &hex("3fe21f")), refused);
        assert_eq!(decoded(&mut decoder, &hex("203fe21f")), refused);
        assert_eq!(decoded(&mut decoder, &hex("8220")), refused);
        assert_eq!(decoded(&mut decoder, &[&kept[..], &hex("20")].concat()), refused);
        // The default size holds until the peer knows ours, and then only ours does.
        let mut decoder = Decoder::new(0);
        assert_eq!(decoded(&mut decoder, &[&kept[..], &hex("be")].concat()).unwrap().len(), 2);
        assert_eq!(decoded(&mut decoder, &hex("21")), refused);
        assert_eq!(decoded(&mut decoder, &[&hex("20")[..], &kept].concat()).unwrap().len(), 1);
        assert_eq!(decoder.table.len(), 0);
    }

    #[test]
    fn indices_that_are_in_no_table() {
        for block in
            ["80", "be", "ff00", "ffffffff7f", "7f00 0161", "0f2f 0161", "1f2f 0161", "400161 0162 bf"]
        {
            assert_eq!(decoded(&mut Decoder::new(4096), &hex(block)), Err(HpackError::Index), "{block}");
        }
        for block in
            ["ff8080808000", "0fffffffff01", "00ffffffffff01", "0001617fffffffff01", "3fffffffffff01"]
        {
            assert_eq!(decoded(&mut Decoder::new(4096), &hex(block)), Err(HpackError::Integer), "{block}");
        }
    }

    #[test]
    fn a_name_of_the_table_outlives_its_entry() {
        let mut decoder = Decoder::new(4096);
        let value = vec![b'v'; 3000];
        let long = |first: u8, rest: &str| {
            [&[first][..], &hex(rest), &[0x7f, 0xb9, 0x16], &value].concat() // 3000 in 7 bits
        };
        decoded(&mut decoder, &long(0x40, "0161")).unwrap();
        let fields = decoded(&mut decoder, &long(0x7e, "")).unwrap();
        assert_eq!((fields[0].0.as_str(), fields[0].1.len()), ("a", 3000));
        assert_eq!(table(&decoder), format!("a: {}\n", fields[0].1));
    }

    #[test]
    fn a_cut_field_is_an_error() {
        let huffman = huffman::encode(b"custom-value");
        let text =
            [&hex("0084")[..], &huffman::encode(b"custom")[..], &[0x80 | huffman.len() as u8], &huffman]
                .concat();
        for field in [
            &hex("3fe11f")[..],
            &hex("ff01"),
            &hex("400a637573746f6d2d6b6579 03 616263"),
            &hex("0f0f 03 616263"),
            &text,
        ] {
            for cut in 1..field.len() {
                let refused = decoded(&mut Decoder::new(4096), &field[..cut]);
                assert_eq!(refused, Err(HpackError::Truncated), "{field:?} {cut}");
            }
        }
        assert_eq!(
            decoded(&mut Decoder::new(4096), &text).unwrap(),
            [("custom".into(), "custom-value".into())]
        );
        assert_eq!(decoded(&mut Decoder::new(4096), &[]), Ok(vec![]));
    }

    #[test]
    fn large_scratch_is_given_back() {
        let mut decoder = Decoder::new(4096);
        let text = huffman::encode(&[b'a'; 9000]);
        let mut block = vec![0x00];
        for _ in 0..2 {
            integer::put(text.len(), 7, 0x80, &mut block);
            block.extend_from_slice(&text);
        }
        let fields = decoded(&mut decoder, &block).unwrap();
        assert_eq!((fields[0].0.len(), fields[0].1.len()), (9000, 9000));
        assert_eq!((decoder.name.capacity(), decoder.value.capacity()), (0, 0));
        // A length alone reserves nothing.
        assert_eq!(decoded(&mut decoder, &hex("00ffffffff7f61")), Err(HpackError::Truncated));
        assert_eq!(decoder.name.capacity(), 0);
    }

    #[test]
    fn random_blocks_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut decoder = Decoder::new(300);
        for _ in 0..100_000 {
            let mut block: Vec<u8> = (0..random() % 24).map(|_| random() as u8).collect();
            if random() % 2 == 0 {
                // Short strings of a new field, so that the table fills.
                block.splice(0..0, [0x40, 0x01, b'a', 0x01, random() as u8]);
            }
            let _ = decoder.decode(&block, |_, _| {});
            assert!(decoder.name.capacity() + decoder.value.capacity() < 1000);
        }
    }
}
