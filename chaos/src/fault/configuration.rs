//! The configuration is damaged. What was in force stays in force; saves wait until it is mended.

use super::inject::{FaultError, Guard, Injection};
use super::pick;
use crate::run::stage::Stage;

/// A byte that is in no UTF-8 text.
const NO_TEXT: u8 = 0xff;

/// A damaged configuration. The one before is saved when dropped.
struct Spoilt<'s>(&'s Stage<'s>);

impl Guard for Spoilt<'_> {}

impl Drop for Spoilt<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.configuration.mend() {
            self.0.trouble(format!("the configuration is not mended: {error}"));
        }
    }
}

/// Saves, by a rename, a text with one byte that no text has.
pub fn corrupt<'s>(stage: &'s Stage<'s>, draw: u32) -> Result<Injection<'s>, FaultError> {
    spoil(stage, false, |bytes| {
        let place = pick(draw, bytes.len());
        bytes[place] = NO_TEXT;
        format!("byte {place} of {}", bytes.len())
    })
}

/// Cuts the file off in place, just behind a brace that opens: at other places, what is left can be
/// valid and mean less, and would rightly be put in force.
pub fn truncate<'s>(stage: &'s Stage<'s>, draw: u32) -> Result<Injection<'s>, FaultError> {
    spoil(stage, true, |bytes| {
        let whole = bytes.len();
        let braces = (0..whole).filter(|place| bytes[*place] == b'{').count();
        let brace = pick(draw, braces);
        let place = (0..whole).filter(|place| bytes[*place] == b'{').nth(brace).unwrap_or(0);
        bytes.truncate(place + 1);
        format!("to {} of {whole} bytes", place + 1)
    })
}

fn spoil<'s>(
    stage: &'s Stage<'s>,
    in_place: bool,
    damage: impl FnOnce(&mut Vec<u8>) -> String,
) -> Result<Injection<'s>, FaultError> {
    let guard = Spoilt(stage);
    let mut note = String::new();
    stage.configuration.spoil(in_place, |bytes| note = damage(bytes))?;
    Ok(Injection::held(guard, note))
}
