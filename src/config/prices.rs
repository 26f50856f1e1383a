//! Files with prices: `currency`, the price of one hour of a device by its name or as `default`, and of energy (`kwh`).

use std::path::Path;

use indexmap::IndexMap;

use super::tree::Diagnostic;
use super::{Environment, Error};

/// What a price file says.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceFile {
    /// As written.
    pub currency: String,
    /// The price of one hour of any other device.
    pub default: Option<f64>,
    /// The price of a kilowatt-hour.
    pub kwh: Option<f64>,
    /// The price of one hour, by name.
    pub devices: IndexMap<String, f64>,
}

/// Reads a price file: YAML, JSON or TOML.
///
/// # Errors
/// When there is none, or a key of it is wrong; with its place and what was expected.
pub fn read_prices(file: &Path, environment: &Environment) -> Result<PriceFile, Error> {
    let tree = super::load::load(file, environment)?;
    let map = tree.entries().ok_or_else(|| Error::wrong(&tree, "", "a map of devices and prices", hint()))?;
    let mut found = PriceFile { currency: String::new(), default: None, kwh: None, devices: IndexMap::new() };
    for (key, entry) in map {
        if key == "currency" {
            let text = entry.value.scalar().filter(|text| !text.trim().is_empty());
            let text = text.ok_or_else(|| Error::wrong(&entry.value, key, "a currency, such as `EUR`", hint()))?;
            found.currency = text;
            continue;
        }
        let price = entry.value.scalar().and_then(|text| text.parse::<f64>().ok());
        let price = price.filter(|price| price.is_finite() && *price >= 0.0).ok_or_else(|| {
            let what =
                if key == "kwh" { "the price of a kilowatt-hour" } else { "the price of one device for one hour" };
            Error::wrong(&entry.value, key, what, hint())
        })?;
        match key.as_str() {
            "default" => found.default = Some(price),
            "kwh" => found.kwh = Some(price),
            _ => drop(found.devices.insert(key.clone(), price)),
        }
    }
    let lacks = |what: &str| Error::from(Diagnostic::new(&tree.origin, "", what).hint(hint().unwrap_or_default()));
    if found.currency.is_empty() {
        return Err(lacks("misses `currency`"));
    }
    if found.default.is_none() && found.kwh.is_none() && found.devices.is_empty() {
        return Err(lacks("has no price"));
    }
    Ok(found)
}

#[expect(clippy::unnecessary_wraps, reason = "as errors take it")]
fn hint() -> Option<String> {
    Some(
        "such as `currency: EUR`, `default: 1.20`, `NVIDIA H100: 2.40`, `kwh: 0.30` for energy (docs/analysis.md)"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PriceFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prices.yaml");
        std::fs::write(&file, text).unwrap();
        let place = format!("{}", dir.path().display());
        read_prices(&file, &Environment::of(&[], Path::new("/"))).map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn a_price_file_is_a_map_and_what_is_wrong_is_named() {
        let found = read("currency: EUR\ndefault: 1.2\nNVIDIA H100: 2.40\n").unwrap();
        assert_eq!((found.currency.as_str(), found.default, found.devices["NVIDIA H100"]), ("EUR", Some(1.2), 2.4));
        assert_eq!(read("currency: EUR\nkwh: 0.3\n").unwrap().kwh, Some(0.3));
        assert!(read("{\"currency\": \"USD\", \"default\": 1}").is_ok());
        for (text, told) in [
            ("currency: EUR\nH100: dear\n", "H100: expected the price of one device for one hour, found"),
            ("currency: EUR\nkwh: free\n", "kwh: expected the price of a kilowatt-hour, found"),
            ("currency: EUR\nH100: -1\n", "prices.yaml:2"),
            ("default: 1\n", "misses `currency`"),
            ("currency: EUR\n", "has no price"),
            ("- 1\n", "a map of devices and prices"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
