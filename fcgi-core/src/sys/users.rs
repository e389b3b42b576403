//! Users and groups by name.

use std::ffi::{CStr, CString};
use std::mem;
use std::ptr;

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
    /// Its name; empty if only the number is known.
    pub name: String,
}

/// The user of this name or number.
pub fn user(name: &str) -> Option<User> {
    // Who asks for nobody must not load the name services' libraries: they stay, with some 800 kB.
    let c_name = CString::new(name).ok().filter(|_| !name.is_empty())?;
    let mut buffer = vec![0u8; 16 * 1024];
    // SAFETY: record and buffer are valid for the call to fill; the found record points into the buffer.
    unsafe {
        let mut record: libc::passwd = mem::zeroed();
        let mut found = ptr::null_mut();
        let len = buffer.len();
        if let Ok(uid) = name.parse::<u32>() {
            libc::getpwuid_r(uid, &mut record, buffer.as_mut_ptr().cast(), len, &mut found);
            if found.is_null() {
                return Some(User { uid, gid: uid, name: String::new() });
            }
        } else {
            libc::getpwnam_r(c_name.as_ptr(), &mut record, buffer.as_mut_ptr().cast(), len, &mut found);
            if found.is_null() {
                return None;
            }
        }
        let name = CStr::from_ptr(record.pw_name).to_string_lossy().into_owned();
        Some(User { uid: record.pw_uid, gid: record.pw_gid, name })
    }
}

/// A right that root has, and others by capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the kernel's names
pub enum Right {
    Chown = 0,
    SetGid = 6,
    SetUid = 7,
    SysChroot = 18,
    SysNice = 23,
    SysResource = 24,
}

/// Whether this process has the right. Yes, where the system does not say.
pub fn has(right: Right) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) {
        Some(held) => held & 1 << right as u32 != 0,
        None => true,
    }
}

/// Whether this process is in the group, as its own or as a further one: it may give its files to it.
pub fn is_in(group: u32) -> bool {
    // SAFETY: asked for no entries it only counts them.
    let count = unsafe { libc::getgroups(0, ptr::null_mut()) };
    let mut groups = vec![0 as libc::gid_t; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the array is valid for as many entries as it is said to have; getegid has no arguments.
    let (own, count) = unsafe { (libc::getegid(), libc::getgroups(groups.len() as libc::c_int, groups.as_mut_ptr())) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    own == group || groups.contains(&group)
}

/// The number of the group of this name or number.
pub fn group(name: &str) -> Option<u32> {
    if let Ok(gid) = name.parse() {
        return Some(gid);
    }
    let c_name = CString::new(name).ok().filter(|_| !name.is_empty())?;
    let mut buffer = vec![0u8; 16 * 1024];
    // SAFETY: as in `user`.
    unsafe {
        let mut record: libc::group = mem::zeroed();
        let mut found = ptr::null_mut();
        libc::getgrnam_r(c_name.as_ptr(), &mut record, buffer.as_mut_ptr().cast(), buffer.len(), &mut found);
        (!found.is_null()).then_some(record.gr_gid)
    }
}

/// Every group that a user belongs to.
pub fn groups_of(user: &User) -> Vec<u32> {
    let Ok(name) = CString::new(user.name.as_str()) else {
        return vec![user.gid];
    };
    let mut groups = vec![0 as libc::gid_t; 256];
    let mut count = groups.len() as libc::c_int;
    // SAFETY: the array is valid for `count` entries; the call sets how many it filled.
    let result = unsafe { libc::getgrouplist(name.as_ptr(), user.gid, groups.as_mut_ptr(), &mut count) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    if result == -1 || groups.is_empty() {
        return vec![user.gid];
    }
    groups
}
