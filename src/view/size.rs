//! Sizes as text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes in the form of the configuration: `2GiB`, `1536MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeText(pub u64);

/// From the largest down, with their bytes as powers of two.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that leaves nothing over, so that what is read back is the same to the byte.
        match UNITS.iter().find(|(_, power)| self.0 > 0 && self.0.trailing_zeros() >= *power) {
            Some((unit, power)) => write!(f, "{}{unit}", self.0 >> power),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for SizeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a size such as \"2GiB\""))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for text in ["2GiB", "1536MiB", "64TiB", "1KiB", "1025B", "0B"] {
            let json = format!("\"{text}\"");
            let read: SizeText = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        let error = serde_json::from_str::<SizeText>("\"1 pint\"").unwrap_err().to_string();
        assert!(error.contains("1 pint") && error.contains("a size such as"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn every_size_comes_back_to_the_byte(bytes in proptest::prelude::any::<u64>(), zeros in 0_u32..50) {
            let size = SizeText(bytes >> 14 << zeros);
            let text = serde_json::to_string(&size).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<SizeText>(&text).unwrap(), size);
        }
    }
}
