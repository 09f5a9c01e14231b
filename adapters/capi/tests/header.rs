//! The committed header is the one that cbindgen generates. `BITSTEP_RENEW=1` regenerates it.

use std::path::Path;

#[test]
fn header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
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
        let reads = ["_lr", "_size", "_save", "_apply"].iter().any(|end| name.ends_with(end))
            || name == "bitstep_rule_step";
        let setter = name.ends_with("set_lr");
        if reads && !setter {
            assert!(first.starts_with("const "), "{name}({first}");
            seen += 1;
        }
    }
    assert_eq!(seen, 10);
}
