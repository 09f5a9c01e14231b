//! Sizes that no machine has memory for are errors and do not end the process. Runs under a memory limit.

use std::ffi::CString;
use std::process::Command;
use std::ptr::{null, null_mut};

use bitstep_capi::*;

/// Runs this test again in a process limited to 512 MiB.
fn limited(test: &str) -> bool {
    const LIMIT: u64 = 512 << 20;
    if std::env::var_os("BITSTEP_LIMITED").is_some() {
        let limit = rustix::process::Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("a limit");
        return true;
    }
    let me = std::env::current_exe().expect("this program");
    let mut child = Command::new(me);
    child.args([test, "--exact", "--test-threads=1"]).env("BITSTEP_LIMITED", "1");
    let output = child.output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
    false
}

#[test]
fn parameter_of_any_size_is_an_error_or_there() {
    if !limited("parameter_of_any_size_is_an_error_or_there") {
        return;
    }
    let text = |s: &str| CString::new(s).expect("no 0 within");
    // SAFETY: live handles, live strings and outputs.
    unsafe {
        let (mut o, mut group) = (null_mut(), 0);
        assert_eq!(bitstep_optimizer_new(&mut o, null_mut()), BITSTEP_OK);
        for (name, arguments) in [
            ("adamw_torch", ""),
            ("sgd", ""),
            ("adafactor", ""),
            ("flash_adamw", ""),
            ("adamw_bnb_8bit", ""),
            ("apollo_adamw", "rank=1099511627776"),
            ("galore_adamw", "rank=9007199254740992"),
        ] {
            let (name, arguments) = (text(name), text(arguments));
            let made = bitstep_optimizer_add_group(
                o,
                name.as_ptr(),
                arguments.as_ptr(),
                &mut group,
                null_mut(),
            );
            assert_eq!(made, BITSTEP_OK);
        }
        for group in 0..7 {
            for dtype in [BITSTEP_F64, BITSTEP_F32, BITSTEP_BF16] {
                for shape in [
                    &[1 << 40, 1][..],
                    &[1, 1 << 40],
                    &[1 << 61, 1],
                    &[1 << 30, 1 << 30],
                    &[usize::MAX, usize::MAX],
                    &[1 << 62, 1 << 62, 16],
                    &[1 << 28, 2],
                ] {
                    let mut error = ErrorMessage { message: [0; 256] };
                    let status = bitstep_optimizer_add_param(
                        o,
                        group,
                        shape.as_ptr(),
                        shape.len(),
                        dtype,
                        &mut error,
                    );
                    // A rule without state accepts any parameter that the caller could have memory for.
                    let numel = shape.iter().try_fold(1usize, |n: usize, &d| n.checked_mul(d));
                    let can_be = numel.is_some_and(|n| n <= isize::MAX as usize / 2);
                    let fits = status == BITSTEP_OK && can_be;
                    let refused = [BITSTEP_MEMORY, BITSTEP_ARGUMENT].contains(&status);
                    assert!(refused || fits, "{group} {dtype} {shape:?}: {status}");
                }
            }
        }
        bitstep_optimizer_free(o);

        // State that is there once and can't be there twice.
        let (mut o, mut copy) = (null_mut(), null_mut());
        assert_eq!(bitstep_optimizer_new(&mut o, null_mut()), BITSTEP_OK);
        let (name, shape) = (text("adamw_torch"), [1usize << 25]);
        bitstep_optimizer_add_group(o, name.as_ptr(), null(), &mut group, null_mut());
        let add = bitstep_optimizer_add_param(o, 0, shape.as_ptr(), 1, BITSTEP_F32, null_mut());
        assert_eq!(add, BITSTEP_OK);
        let mut error = ErrorMessage { message: [0; 256] };
        assert_eq!(bitstep_optimizer_clone(o, &mut copy, &mut error), BITSTEP_MEMORY);
        assert!(copy.is_null());
        bitstep_optimizer_free(o);

        // A small matrix with a rank that is far too large.
        let mut o = null_mut();
        assert_eq!(bitstep_optimizer_new(&mut o, null_mut()), BITSTEP_OK);
        let (name, arguments) = (text("apollo_adamw"), text("rank=1099511627776"));
        bitstep_optimizer_add_group(o, name.as_ptr(), arguments.as_ptr(), &mut group, null_mut());
        let add = bitstep_optimizer_add_param(o, 0, [4, 4].as_ptr(), 2, BITSTEP_F32, null_mut());
        assert_eq!(add, BITSTEP_MEMORY);
        bitstep_optimizer_free(o);

        // A window of 16 GiB is allocated as it fills.
        let (mut s, name) = (null_mut(), text("greedy"));
        let arguments = text("smooth=True, window_size=2147483647");
        let made = bitstep_schedule_new(name.as_ptr(), arguments.as_ptr(), &mut s, null_mut());
        assert_eq!(made, BITSTEP_OK);
        assert_eq!(bitstep_schedule_step(s, &1.0, 1, null_mut()), BITSTEP_OK);
        bitstep_schedule_free(s);

        // The number of groups times that of their arguments.
        let many = "{\"lr\": 1, \"groups\": [".to_owned()
            + &"{},".repeat(10_000)
            + "{}], \"milestones\": ["
            + &"1,".repeat(16_000)
            + "1]}";
        let (mut s, name, many) = (null_mut(), text("torch_multi_step"), text(&many));
        let made = bitstep_schedule_new(name.as_ptr(), many.as_ptr(), &mut s, null_mut());
        assert_eq!(made, BITSTEP_ARGUMENT);
        assert!(s.is_null() && null::<u8>().is_null());
    }
}
