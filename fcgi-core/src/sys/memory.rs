//! What a long-lived process keeps in memory.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;

/// Unmaps the pages of this executable's file that were mapped for its start (flags, configuration, messages). They stay in the page
/// cache: what is needed again is mapped again, without reading the disk. Pages that were written to are not touched.
pub fn give_back_start() {
    let Ok(exe) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    for line in std::fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        // start-end perms offset device inode path
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(perms)) = (fields.next(), fields.next()) else {
            continue;
        };
        let is_ours = line.split_once('/').is_some_and(|(_, path)| exe.as_os_str() == &*format!("/{path}"));
        if !is_ours || perms.contains('w') || !perms.starts_with('r') {
            continue;
        }
        let ends = range.split_once('-').map(|(a, b)| (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16)));
        let Some((Ok(start), Ok(end))) = ends else {
            continue;
        };
        // RELRO pages are read-only now, and private copies: dropping those would bring the file's unrelocated bytes back.
        if !perms.contains('x') && has_private_pages(start) {
            continue;
        }
        // SAFETY: a mapping of the executable's file that nobody has written to: whatever is touched again reads the same bytes.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Whether the mapping that starts there holds pages of its own; also true where the system does not say.
fn has_private_pages(start: usize) -> bool {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else {
        return true;
    };
    let head = format!("{start:08x}-");
    let mut lines =
        smaps.lines().skip_while(|line| !line.starts_with(&head) && !line.starts_with(head.trim_start_matches('0')));
    let anonymous = lines.find(|line| line.starts_with("Anonymous:"));
    anonymous.is_none_or(|line| line.split_ascii_whitespace().nth(1) != Some("0"))
}
