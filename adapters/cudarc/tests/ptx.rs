//! The kernels' text.

use bitstep_cudarc::{kernel, ptx};

#[test]
fn ptx_holds_no_operation_that_was_not_asked_for() {
    assert!(ptx().starts_with("// Made by .ci/ptx"), "not unpacked");
    let complaints = bitstep_ptx::lint(ptx());
    assert!(complaints.is_empty(), "{} complaints, the first: {}", complaints.len(), complaints[0]);
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
