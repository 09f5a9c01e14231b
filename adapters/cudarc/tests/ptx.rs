//! The PTX of the kernels.

use bitstep_cudarc::{kernel, ptx};

#[test]
fn ptx_holds_no_operation_that_was_not_asked_for() {
    assert!(ptx().starts_with("// Made by .ci/ptx"), "not unpacked");
    let complaints = bitstep_ptx::lint(ptx());
    assert!(complaints.is_empty(), "{} complaints, the first: {}", complaints.len(), complaints[0]);
}

/// The PTX with one forbidden operation added, for each kind.
#[test]
fn an_operation_planted_among_the_kernels_is_found() {
    for (good, bad) in [
        ("add.rn.f32 ", "add.f32 "),
        ("mul.rn.f32 ", "mul.rn.ftz.f32 "),
        ("mul.rn.f64 ", "mul.rz.f64 "),
        ("div.rn.f32 ", "div.approx.f32 "),
        ("div.rn.f32 ", "div.full.f32 "),
        ("sqrt.rn.f32 ", "sqrt.approx.f32 "),
        ("sub.rn.f32 ", "fma.rn.f32 "),
        ("sub.rn.f64 ", "mad.rn.f64 "),
        ("cvt.rn.f32.f64 ", "cvt.rz.f32.f64 "),
    ] {
        assert!(ptx().contains(good), "{good}");
        let said = bitstep_ptx::lint(&ptx().replacen(good, bad, 1));
        assert_eq!(said.len(), 1, "{bad}: {said:?}");
    }
}

#[test]
fn ptx_is_small_enough_to_be_shipped() {
    let packed = std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/bitstep.ptx.zlib"));
    assert!(packed.unwrap().len() < 4 << 20);
}

#[test]
fn ptx_names_the_compiler_and_the_sources_that_it_was_made_of() {
    let mut lines = ptx().lines().skip(1);
    assert!(lines.next().is_some_and(|l| l.starts_with("// compiler: rustc ")));
    assert!(lines.next().is_some_and(|l| l.len() == "// sources: ".len() + 64));
    assert!(lines.any(|l| l == ".target sm_75"));
}

#[test]
fn every_kernel_alone_is_a_module() {
    let names = ptx().split(".visible .entry ").skip(1);
    let names: Vec<&str> = names.filter_map(|rest| rest.split('(').next()).collect();
    assert!(names.len() > 500);
    for name in names {
        let text = kernel(name).unwrap();
        assert_eq!(text.matches(".entry").count(), 1, "{name}");
        let machine = bitstep_ptx::Machine::new(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(machine.names().collect::<Vec<_>>(), [name]);
    }
    assert_eq!(kernel("adamw_apply"), None);
}
