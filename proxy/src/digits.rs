//! Decimal numbers as text, without a way through the machinery of `format!`.

/// Most digits of a `u64`.
const MOST: usize = 20;

/// Appends a number.
pub(crate) fn push_decimal(number: u64, out: &mut Vec<u8>) {
    // Without a loop for what is most frequent: parts of addresses, statuses.
    let digit = |number: u64| b'0' + (number % 10) as u8;
    match number {
        0..10 => out.push(digit(number)),
        10..100 => out.extend_from_slice(&[digit(number / 10), digit(number)]),
        100..1000 => out.extend_from_slice(&[digit(number / 100), digit(number / 10), digit(number)]),
        _ => push_digits(number, 1, out),
    }
}

/// Appends a number of thousandths with its three decimal places.
pub(crate) fn push_thousandths(number: u64, out: &mut Vec<u8>) {
    push_digits(number / 1000, 1, out);
    out.push(b'.');
    push_digits(number % 1000, 3, out);
}

/// Appends a number with so many digits at least.
fn push_digits(number: u64, least: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; MOST];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        used += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(MOST - used.max(least)..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_text() {
        for number in [0, 1, 9, 10, 99, 100, 999, 1000, 1001, 65_535, 1_795_734_207_501, u64::MAX] {
            let mut text = Vec::new();
            push_decimal(number, &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), number.to_string());
            let mut text = Vec::new();
            push_thousandths(number, &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), format!("{}.{:03}", number / 1000, number % 1000));
        }
    }
}
