//! The little JSON that is written here: status, reports, log lines. No reader is needed.

use std::fmt::Write;

/// An object under construction.
pub struct Object(String);

/// A string with JSON's escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Default for Object {
    fn default() -> Object {
        Object::new()
    }
}

impl Object {
    /// Without members.
    pub fn new() -> Object {
        Object(String::from("{"))
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quote(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    /// A text member.
    pub fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quote(value));
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, value: i64) {
        self.raw(name, &value.to_string());
    }

    /// The object as text.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
