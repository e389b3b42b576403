//! The terminal of `top`: its second screen, keys without Enter, its size. What was there before is put back at the end, also
//! when a signal ends it.

use super::{Line, Mood};
use crossterm::style::{style, Attribute, Stylize};
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{cursor, queue};
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::signal::SelfPipe;
use fcgi_core::sys::time;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;

/// What somebody wants.
pub enum Key {
    End,
    Sort,
    /// So many lines down.
    Scroll(isize),
    /// The size is another one.
    Redraw,
}

pub struct Screen {
    signals: SelfPipe,
    /// Whether keys are read: standard input is a terminal.
    keys: bool,
    /// What was typed and not looked at.
    typed: Vec<u8>,
}

impl Screen {
    pub fn open() -> io::Result<Screen> {
        let signals = SelfPipe::install(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGWINCH])
            .map_err(|error| io::Error::other(error.to_string()))?;
        let keys = io::stdin().is_terminal();
        if keys {
            terminal::enable_raw_mode()?;
        }
        let screen = Screen { signals, keys, typed: Vec::new() };
        let mut out = io::stdout();
        queue!(out, terminal::EnterAlternateScreen, cursor::Hide, terminal::DisableLineWrap)?;
        out.flush()?;
        Ok(screen)
    }

    /// The lines from `from` on, which is put right where it is too great, cut to the terminal; the last line is `footer`.
    pub fn draw(&mut self, lines: &[Line], from: &mut usize, footer: &str, color: bool) -> io::Result<()> {
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let (width, room) = (usize::from(width), usize::from(height).saturating_sub(1));
        *from = (*from).min(lines.len().saturating_sub(room));
        let below = lines.len().saturating_sub(*from + room);
        let cut = |line: &str| line.chars().take(width).collect::<String>();
        let mut out = Vec::new();
        for (row, (mood, line)) in (0u16..).zip(lines.iter().skip(*from).take(room)) {
            queue!(out, cursor::MoveTo(0, row))?;
            let line = cut(line);
            out.write_all(if color { paint(*mood, &line) } else { line }.as_bytes())?;
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
        let more = if below > 0 { format!("{below} more below   ") } else { String::new() };
        let footer = cut(&format!("{more}{footer}"));
        queue!(out, Clear(ClearType::FromCursorDown), cursor::MoveTo(0, height.saturating_sub(1)))?;
        out.write_all(if color { paint(Mood::Faint, &footer) } else { footer }.as_bytes())?;
        queue!(out, Clear(ClearType::UntilNewLine))?;
        // In one piece: no picture is seen half drawn.
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()
    }

    /// Waits for somebody who wants something; None when it is `end` (monotonic ms).
    pub fn wait(&mut self, end: u64) -> Option<Key> {
        loop {
            if let Some(key) = self.key() {
                return Some(key);
            }
            let left = end.saturating_sub(time::monotonic_ms());
            if left == 0 {
                return None;
            }
            let stdin = if self.keys { poll::IN } else { 0 };
            let mut fds = vec![PollFd::new(self.signals.fd(), poll::IN)];
            fds.extend(self.keys.then(|| PollFd::new(io::stdin().as_raw_fd(), stdin)));
            let _ = poll::poll(&mut fds, i32::try_from(left).unwrap_or(i32::MAX));
            let signals = self.signals.take();
            if signals.iter().any(|signal| *signal != libc::SIGWINCH) {
                return Some(Key::End);
            }
            if !signals.is_empty() {
                return Some(Key::Redraw);
            }
            if fds.get(1).is_some_and(|fd| fd.happened() != 0) {
                let mut buffer = [0; 256];
                match io::stdin().lock().read(&mut buffer) {
                    Ok(0) | Err(_) => return Some(Key::End),
                    Ok(count) => self.typed.extend(buffer.iter().take(count)),
                }
            }
        }
    }

    fn key(&mut self) -> Option<Key> {
        while let Some(first) = self.typed.first().copied() {
            let arrow = match self.typed.as_slice() {
                // An arrow arrives in one piece.
                [27, b'[' | b'O', letter, ..] => Some(*letter),
                _ => None,
            };
            self.typed.drain(..if arrow.is_some() { 3 } else { 1 });
            match (first, arrow) {
                (_, Some(b'A')) | (b'k', _) => return Some(Key::Scroll(-1)),
                (_, Some(b'B')) | (b'j', _) => return Some(Key::Scroll(1)),
                (b'q' | b'Q' | 3 | 4, None) => return Some(Key::End),
                (b's' | b'S', None) => return Some(Key::Sort),
                _ => {}
            }
        }
        None
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = queue!(out, terminal::EnableLineWrap, cursor::Show, terminal::LeaveAlternateScreen);
        let _ = out.flush();
        if self.keys {
            let _ = terminal::disable_raw_mode();
        }
    }
}

/// A line in its colour.
pub fn paint(mood: Mood, line: &str) -> String {
    let line = style(line);
    match mood {
        Mood::Plain => line,
        Mood::Good => line.green().bold(),
        Mood::Changing => line.yellow(),
        Mood::Bad => line.red().bold(),
        Mood::Busy => line.bold(),
        Mood::Head => line.attribute(Attribute::Reverse),
        Mood::Faint => line.dim(),
    }
    .to_string()
}
