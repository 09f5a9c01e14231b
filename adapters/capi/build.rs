//! Gives the shared library the name that programs look for at run time. Without one a linker would store the path of
//! the file that it was given.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |key: &str| std::env::var(key).unwrap_or_default();
    // The numbers whose change may change the interface: before 1.0 the minor one, too.
    let major = of("CARGO_PKG_VERSION_MAJOR");
    let abi = if major == "0" { format!("0.{}", of("CARGO_PKG_VERSION_MINOR")) } else { major };
    match of("CARGO_CFG_TARGET_OS").as_str() {
        "linux" | "android" | "freebsd" | "netbsd" | "openbsd" | "dragonfly" => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libbitstep.so.{abi}");
        }
        "macos" => {
            println!(
                "cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libbitstep.{abi}.dylib"
            );
        }
        _ => {}
    }
}
