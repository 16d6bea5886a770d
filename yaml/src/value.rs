//! What a scalar can become: numbers, switches, addresses, durations, sizes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use schemars::{Schema, json_schema};

/// A type that a scalar can be read as.
pub trait Value: Sized {
    /// Name of the type in the schema.
    const NAME: &'static str;
    /// What is expected, with an example: ends the sentence "expected ...".
    const WHAT: &'static str;

    /// The value that `text` stands for, or `None`.
    fn parse(text: &str) -> Option<Self>;

    /// The JSON Schema of the plain form.
    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A number of bytes; in the file with a unit of 1024: `4k`, `60M`, `64KiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Value for ByteSize {
    const NAME: &'static str = "size";
    const WHAT: &'static str = "a size such as 4k, 64KiB or 60M";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9]+ ?([kKmMgG]([iI]?[bB])?|[bB])?$" })
    }
}

impl Value for Duration {
    const NAME: &'static str = "duration";
    const WHAT: &'static str = "a duration with its unit, such as 500ms, 5s, 10m or 1h";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let number: u64 = number.parse().ok()?;
        match unit {
            "ms" => Some(Self::from_millis(number)),
            "s" => Some(Self::from_secs(number)),
            "m" => number.checked_mul(60).map(Self::from_secs),
            "h" => number.checked_mul(3600).map(Self::from_secs),
            "d" => number.checked_mul(86_400).map(Self::from_secs),
            "" if number == 0 => Some(Self::ZERO),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^(0|[0-9]+ ?(ms|s|m|h|d))$" })
    }
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    (!number.is_empty()).then(|| (number, unit.trim_start()))
}

impl Value for bool {
    const NAME: &'static str = "switch";
    const WHAT: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "on" | "yes" => Some(true),
            "false" | "off" | "no" => Some(false),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "enum": [true, false, "on", "off", "yes", "no"] })
    }
}

impl Value for String {
    const NAME: &'static str = "text";
    const WHAT: &'static str = "text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

impl Value for PathBuf {
    const NAME: &'static str = "path";
    const WHAT: &'static str = "the path of a file";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

/// Implements [`Value`] by `FromStr`.
macro_rules! by_from_str {
    ($type:ty, $name:literal, $what:literal, $schema:tt) => {
        impl Value for $type {
            const NAME: &'static str = $name;
            const WHAT: &'static str = $what;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn schema() -> Schema {
                json_schema!($schema)
            }
        }
    };
}

by_from_str!(u8, "u8", "a whole number from 0 to 255", { "type": "integer", "minimum": 0, "maximum": 255 });
by_from_str!(u16, "u16", "a whole number from 0 to 65535", { "type": "integer", "minimum": 0, "maximum": 65535 });
by_from_str!(u32, "u32", "a whole number from 0 to 4294967295", { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 });
by_from_str!(usize, "count", "a whole number", { "type": "integer", "minimum": 0 });
by_from_str!(IpAddr, "ip", "an IP address such as 10.0.0.10 or 2001:db8::1", { "type": "string" });
by_from_str!(Ipv4Addr, "ipv4", "an IPv4 address such as 10.0.0.10", { "type": "string" });
by_from_str!(SocketAddr, "address", "an address with a port, such as 10.0.0.10:8080 or [::1]:443", { "type": "string" });
by_from_str!(SocketAddrV4, "address4", "an IPv4 address with a port, such as 10.0.0.10:8080", { "type": "string" });
by_from_str!(ipnet::Ipv4Net, "network4", "an IPv4 network such as 10.0.0.0/24", { "type": "string" });

impl Value for ipnet::IpNet {
    const NAME: &'static str = "network";
    const WHAT: &'static str = "a network such as 10.0.0.0/8, or a single address";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Self::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Duration::parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(Duration::parse("10m"), Some(Duration::from_secs(600)));
        assert_eq!(Duration::parse("0"), Some(Duration::ZERO));
        for wrong in ["5", "s", "-1s", "1.5s", "5 fortnights", "", "99999999999999999999s"] {
            assert_eq!(Duration::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_count_in_1024() {
        assert_eq!(ByteSize::parse("60M"), Some(ByteSize(60 << 20)));
        assert_eq!(ByteSize::parse("64 KiB"), Some(ByteSize(64 << 10)));
        assert_eq!(ByteSize::parse("7"), Some(ByteSize(7)));
        for wrong in ["M", "1.5k", "1T", "99999999999999999999", "18446744073709551615k"] {
            assert_eq!(ByteSize::parse(wrong), None, "{wrong}");
        }
    }
}
