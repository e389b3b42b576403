//! Link flags of the preloaded object: nothing unused, nothing lazily bound (a symbol is never looked up in a request).
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for flag in ["-Wl,--gc-sections", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--as-needed"] {
        println!("cargo:rustc-cdylib-link-arg={flag}");
    }
}
