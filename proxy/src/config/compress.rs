//! The `compress:` of a rule.

use yaml::{ByteSize, Reader};

use super::file::{AlgorithmFile, CompressFile};
use crate::rule::{Algorithm, Compress};

pub(super) fn read(file: &CompressFile, reader: &mut Reader<'_>) -> Compress {
    let algorithms: Vec<Algorithm> = file.algorithms.iter().copied().map(Algorithm::from).collect();
    let mut types = Vec::new();
    for setting in &file.types {
        let Some(text) = reader.read(setting) else { continue };
        let media_type = text.to_ascii_lowercase();
        if !is_media_type(&media_type) {
            let help = "write a type and a subtype, such as text/html, and no parameters";
            reader.problem(setting.at(), format!("`{text}` is no media type"), Some(help.into()));
        } else if !Compress::may_list(&media_type) {
            let help = "leave it out: its messages would wait for the compressor";
            reader.problem(setting.at(), format!("`{text}` is never compressed"), Some(help.into()));
        }
        types.push(media_type);
    }
    if types.is_empty() {
        types = Compress::TYPES.map(str::to_owned).to_vec();
    }
    let min_size = file.min_size.as_ref();
    Compress {
        algorithms: match algorithms.is_empty() {
            true => vec![Algorithm::Zstd, Algorithm::Brotli, Algorithm::Gzip],
            false => algorithms,
        },
        types,
        min_size: reader
            .read_within(
                min_size,
                ByteSize(0)..=ByteSize(1 << 20),
                |size| format!("{} bytes", size.0),
                ByteSize(1024),
            )
            .0,
    }
}

fn is_media_type(text: &str) -> bool {
    let is_name = |part: &str| crate::h1::valid_name(part.as_bytes()) && part != "*";
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

impl From<AlgorithmFile> for Algorithm {
    fn from(file: AlgorithmFile) -> Self {
        match file {
            AlgorithmFile::Zstd => Self::Zstd,
            AlgorithmFile::Br => Self::Brotli,
            AlgorithmFile::Gzip => Self::Gzip,
        }
    }
}
