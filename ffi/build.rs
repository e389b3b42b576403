//! Names the shared library for the linker: `libfcgiguard.so.0`, the 0 being the number that changes when the ABI breaks.
//!
//! Programs that are linked in the tree look for that name too, so a link of it stands beside the library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let soname = "libfcgiguard.so.0";
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // OUT_DIR is target/PROFILE/build/NAME/out. Where it is laid out otherwise, the link is of no use and not needed.
    if let Some(folder) =
        std::env::var_os("OUT_DIR").as_ref().and_then(|out| std::path::Path::new(out).ancestors().nth(3))
    {
        let link = folder.join(soname);
        if link.symlink_metadata().is_err() {
            let _ = std::os::unix::fs::symlink("libfcgiguard.so", link);
        }
    }
}
