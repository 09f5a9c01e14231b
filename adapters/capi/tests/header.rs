//! The committed header is the one that cbindgen generates. `BITSTEP_RENEW=1` regenerates it.

use std::path::Path;

/// What the header says of itself, before anything else.
fn top() -> String {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let [major, minor, patch] = [
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    ];
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "
/*
 The version of this header; bitstep_version() is that of the library. Before 1.0 a minor version may change
 the interface, and the shared library's SONAME with it.
 */
#define BITSTEP_VERSION \"{version}\"
#define BITSTEP_VERSION_MAJOR {major}
#define BITSTEP_VERSION_MINOR {minor}
#define BITSTEP_VERSION_PATCH {patch}

/*
 Define BITSTEP_BARE for a library that was built without an operating system: the program then defines
 bitstep_allocate, bitstep_release and bitstep_abort. Define BITSTEP_SMALL for one without
 bitstep_training_new; the installed pkg-config and CMake files of such a library do.
 */
#ifndef BITSTEP_BARE
#define BITSTEP_STD
#ifndef BITSTEP_SMALL
#define BITSTEP_TRAINER
#endif
#endif
"
    )
}

#[test]
fn header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config =
        cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
    config.after_includes = Some(top());
    let bindings = cbindgen::Builder::new()
        .with_crate(here)
        .with_config(config)
        .generate()
        .expect("a header can be made");
    let mut expected = Vec::new();
    bindings.write(&mut expected);
    let path = here.join("include/bitstep.h");
    if std::env::var_os("BITSTEP_RENEW").is_some() {
        std::fs::write(&path, &expected).expect("the header can be written");
    }
    let committed = std::fs::read(&path).expect("the header");
    assert!(
        committed == expected,
        "include/bitstep.h is out of date: `BITSTEP_RENEW=1 cargo test -p bitstep-capi --test header`"
    );
}

#[test]
fn handles_that_do_not_change_are_const() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/bitstep.h");
    let header = std::fs::read_to_string(path).expect("the header");
    let functions = header.split("int32_t ").skip(1).filter_map(|f| f.split_once('('));
    let mut seen = 0;
    for (name, rest) in functions.filter(|(name, _)| name.starts_with("bitstep_")) {
        let first = rest.split(',').next().unwrap_or_default();
        let ends =
            ["_lr", "_lr_at", "_size", "_sizes", "_save", "_apply", "_clone", "_mode", "_read"];
        let asks = ["_arguments", "_steps", "_param", "_slot", "_entry", "_entry_shape"];
        let reads = ends.iter().chain(&asks).any(|end| name.ends_with(end))
            || name.starts_with("bitstep_rule_") && name != "bitstep_rule_new";
        let writes = ["_set_", "_add_", "_step_"].iter().any(|part| name.contains(part));
        if reads && !writes {
            assert!(first.starts_with("const "), "{name}({first}");
            seen += 1;
        }
    }
    assert_eq!(seen, 27);
}
