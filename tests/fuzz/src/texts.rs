//! What operators write: addresses, options, durations, sizes.

use crate::plant::planted;
use crate::{promise, rng, Outcome};
use fcgi_core::address::Address;
use fcgi_core::manager::options::{parse_signal_entry, PoolOptions};
use fcgi_core::units;

pub fn address(input: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok(0);
    };
    assert!(!planted("colon") || text.matches(':').count() < 3 || !text.contains('['), "planted");
    match text.parse::<Address>() {
        Ok(address) => {
            let shown = address.to_string();
            let again: Address =
                shown.parse().map_err(|e| format!("{text:?} is shown as {shown:?}, which is refused: {e}"))?;
            promise(again == address, || format!("{text:?} is shown as {shown:?}, which is {again:?}"))?;
            let kind = match address {
                Address::Unix(_) => 1,
                Address::Fd(_) => 2,
                Address::Systemd(_) => 3,
                _ => 4,
            };
            Ok(kind + 8 * u64::from(text.contains('[')) + 16 * u64::from(text.starts_with("unix:")))
        }
        Err(error) => {
            let shown = error.to_string();
            promise(!shown.is_empty() && !shown.contains('\n'), || {
                format!("an error of several lines for {text:?}: {shown:?}")
            })?;
            // Its words without the input tell the kinds apart.
            Ok(rng::hash(shown.rsplit(':').next().unwrap_or("").as_bytes()) | 1 << 63)
        }
    }
}

pub fn options(input: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok(0);
    };
    let mut options = PoolOptions::default();
    let mut signature = 0u64;
    for line in text.lines().take(32) {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let before = options.get(name);
        match options.set(name, value) {
            Ok(()) => {
                signature = signature.wrapping_mul(31) ^ rng::hash(name.as_bytes());
                let shown = options.get(name).ok_or_else(|| format!("{name} is set, and unknown"))?;
                let mut again = PoolOptions::default();
                again.set(name, &shown).map_err(|e| format!("{name} is shown as {shown:?}, which is refused: {e}"))?;
                let repeated = again.get(name).unwrap_or_default();
                promise(repeated == shown, || format!("{name} is shown as {shown:?}, which is read as {repeated:?}"))?;
                if let (true, Ok(number)) = (planted("wrap"), value.trim().parse::<u64>()) {
                    promise(number < 1 << 31, || "planted".into())?;
                }
            }
            Err(fault) => {
                promise(options.get(name) == before, || format!("{name}: refused, and changed"))?;
                let shown = fault.to_string();
                promise(!shown.trim().is_empty(), || "a fault without words".into())?;
                signature ^= 1 << 63;
            }
        }
        parse_signal_entry(value);
        if let Ok(ms) = units::parse_duration_ms(value) {
            let shown = units::format_duration_ms(ms);
            promise(units::parse_duration_ms(&shown) == Ok(ms), || {
                format!("{value:?} is {ms} ms, shown as {shown:?}")
            })?;
        }
        if let Ok(bytes) = units::parse_size(value) {
            let shown = units::format_size(bytes);
            promise(units::parse_size(&shown) == Ok(bytes), || format!("{value:?} is {bytes} B, shown as {shown:?}"))?;
        }
    }
    for fault in options.validate() {
        signature = signature.wrapping_add(rng::hash(fault.to_string().as_bytes()) & 0xff);
    }
    Ok(signature)
}
