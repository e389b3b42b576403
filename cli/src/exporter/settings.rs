//! What the exporter is to do: flags and a TOML file say the same things; flags add to the file's lists and replace its values.
//!
//! ```toml
//! listen = ["127.0.0.1:9919"]
//! control = ["unix:/run/web.control"]
//! [probe.php]                       # the keys of `fcgiguard probe`, and the targets
//! targets = ["unix:/run/php/fpm.sock"]
//! script = "/srv/ping.php"
//! ```

use super::Module;
use fcgi_core::address::Address;
use fcgi_core::probe::Probe;
use fcgi_core::units::parse_duration_ms;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// Everything that can be said.
pub struct Settings {
    pub listen: Vec<String>,
    pub controls: Vec<(Address, String)>,
    pub modules: Vec<Module>,
    /// Beginnings of targets that /probe may be asked for; None: see [`Settings::may_probe`].
    pub allow: Vec<String>,
    pub timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: Vec::new(),
            controls: Vec::new(),
            modules: vec![Module::new("default")],
            allow: Vec::new(),
            timeout_ms: 5000,
        }
    }
}

impl Settings {
    pub fn listen(&mut self, text: &str) -> Result<(), String> {
        Address::parse(text).map_err(|error| error.to_string())?;
        self.listen.push(text.to_owned());
        Ok(())
    }

    pub fn control(&mut self, text: &str) -> Result<(), String> {
        let address = connectable(text)?;
        // Asked twice it would give every series twice, which no scraper takes.
        if !self.controls.iter().any(|(_, known)| known == text) {
            self.controls.push((address, text.to_owned()));
        }
        Ok(())
    }

    /// One more target of a module, which has to exist.
    pub fn target(&mut self, module: &str, text: &str) -> Result<(), String> {
        let address = connectable(text)?;
        if let Some(module) = self.modules.iter_mut().find(|known| known.name == module) {
            if !module.targets.iter().any(|(_, known)| known == text) {
                module.targets.push((address, text.to_owned()));
            }
        }
        Ok(())
    }

    pub fn timeout(&mut self, text: &str) -> Result<(), String> {
        let ms = parse_duration_ms(text).map_err(|error| error.to_string())?;
        if !(10..=600_000).contains(&ms) {
            return Err(format!("{text:?}: a timeout is from 10ms to 10m"));
        }
        self.timeout_ms = ms;
        Ok(())
    }

    /// Whether /probe may be asked for this target. Whoever reaches the exporter makes it connect, so that without a list
    /// anything goes only where nobody from elsewhere reaches it.
    pub fn may_probe(&self, target: &str) -> bool {
        if self.modules.iter().any(|module| module.targets.iter().any(|(_, known)| known == target)) {
            return true;
        }
        if self.allow.is_empty() {
            return self.listen.iter().all(|text| is_local(text));
        }
        !target.contains("..") && self.allow.iter().any(|beginning| target.starts_with(beginning))
    }

    /// Adds what a file says; all its faults, each with its line and column.
    pub fn read(&mut self, source: &str, file: &str) -> Vec<String> {
        let mut faults: Vec<(usize, String)> = Vec::new();
        match DeTable::parse(source) {
            Ok(table) => {
                for (key, value) in table.get_ref() {
                    self.entry(key.get_ref(), value, &mut faults);
                }
            }
            Err(error) => faults.push((error.span().map_or(0, |span| span.start), error.message().to_owned())),
        }
        faults.sort();
        let place = |at: usize| {
            let before = source.get(..at).unwrap_or(source);
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("{file}:{}:{column}", before.matches('\n').count() + 1)
        };
        faults.iter().map(|(at, text)| format!("{}: {text}", place(*at))).collect()
    }

    fn entry(&mut self, key: &str, value: &Spanned<DeValue<'_>>, faults: &mut Vec<(usize, String)>) {
        if let ("probe", DeValue::Table(modules)) = (key, value.get_ref()) {
            for (name, body) in modules {
                match body.get_ref() {
                    DeValue::Table(body) => self.module(name.get_ref(), body, faults),
                    _ => faults.push((name.span().start, "write each as [probe.NAME]".to_owned())),
                }
            }
            return;
        }
        let known = ["listen", "control", "allow", "timeout"];
        if !known.contains(&key) {
            return faults
                .push((value.span().start, format!("{key}: expected one of {}, [probe.NAME]", known.join(", "))));
        }
        for (text, at) in texts(value, faults) {
            let done = match key {
                "listen" => self.listen(&text),
                "control" => self.control(&text),
                "timeout" => self.timeout(&text),
                _ => {
                    self.allow.push(text);
                    Ok(())
                }
            };
            if let Err(why) = done {
                faults.push((at, format!("{key}: {why}")));
            }
        }
    }

    fn module(&mut self, name: &str, body: &DeTable<'_>, faults: &mut Vec<(usize, String)>) {
        let place = match self.modules.iter().position(|module| module.name == name) {
            Some(place) => place,
            None => {
                self.modules.push(Module::new(name));
                self.modules.len() - 1
            }
        };
        let mut probe = Probe::new();
        let mut start = 0;
        for (key, value) in body {
            start = key.span().start;
            for (text, at) in texts(value, faults) {
                let done = if key.get_ref() == "targets" {
                    self.target(name, &text)
                } else {
                    probe.set(key.get_ref(), &text).map_err(|fault| fault.to_string())
                };
                if let Err(why) = done {
                    faults.push((at, why));
                }
            }
        }
        faults.extend(probe.faults().iter().map(|fault| (start, fault.to_string())));
        if let Some(module) = self.modules.get_mut(place) {
            module.probe = probe;
        }
    }
}

fn connectable(text: &str) -> Result<Address, String> {
    match Address::parse(text) {
        Ok(Address::Fd(_) | Address::Systemd(_)) => Err(format!("{text:?}: a descriptor cannot be connected to")),
        Ok(address) => Ok(address),
        Err(error) => Err(error.to_string()),
    }
}

fn is_local(text: &str) -> bool {
    match Address::parse(text) {
        Ok(Address::Tcp { host, .. }) => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Ok(Address::Unix(_)) => true,
        _ => false,
    }
}

/// A value, or each of a list, as text with its place.
fn texts(value: &Spanned<DeValue<'_>>, faults: &mut Vec<(usize, String)>) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut one = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(text) => found.push((text.to_string(), item.span().start)),
        DeValue::Integer(number) => found.push((number.as_str().to_owned(), item.span().start)),
        _ => faults.push((item.span().start, "expected a text, a number, or a list of them".to_owned())),
    };
    match value.get_ref() {
        DeValue::Array(items) => items.iter().for_each(one),
        _ => one(value),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_the_flags_say() {
        let mut settings = Settings::default();
        let faults = settings.read(
            "listen = ':9919'\ncontrol = ['unix:/a', 'unix:/b', 'unix:/a']\ntimeout = '2s'\n[probe.php]\n\
             targets = ['unix:/c', ':9000']\nmethod = 'request'\nexpect_status = '2xx'\ntimeout = 1\n",
            "f",
        );
        assert_eq!(faults, [] as [String; 0]);
        assert_eq!(settings.controls.len(), 2, "the same one twice is one");
        assert_eq!((settings.timeout_ms, settings.modules.len()), (2000, 2));
        let php = &settings.modules[1];
        assert_eq!((php.name.as_str(), php.targets.len(), php.probe.timeout_ms), ("php", 2, 1000));
    }

    #[test]
    fn every_fault_of_a_file_is_told_with_its_place() {
        let text = "listen = 'unix'\nwhat = 1\n[probe.x]\ntargets = ['fd:3']\nexpect_status = 'high'\nn = 2\n";
        let faults = Settings::default().read(text, "f");
        let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(": ").next()).collect();
        assert_eq!(places, ["f:1:10", "f:2:8", "f:4:12", "f:5:17", "f:6:5"], "{faults:#?}");
    }

    #[test]
    fn any_target_may_be_asked_for_only_where_nobody_from_elsewhere_asks() {
        let mut settings = Settings::default();
        settings.listen("127.0.0.1:9919").unwrap();
        assert!(settings.may_probe("unix:/x"));
        settings.listen("0.0.0.0:9919").unwrap();
        assert!(!settings.may_probe("unix:/x"));
        settings.target("default", "unix:/x").unwrap();
        assert!(settings.may_probe("unix:/x"), "what is configured may be asked for");
        settings.allow.push("unix:/run/".into());
        assert!(settings.may_probe("unix:/run/y") && !settings.may_probe("unix:/run/../etc/y"));
        assert!(!settings.may_probe("10.0.0.1:80"));
    }
}
