//! State saved by earlier versions of this interface still loads, and training resumes with the same bits.
//!
//! `saved/2.txt` was written by version 2, with a line for each optimizer and schedule: its name, the
//! saved bytes, and the bits of parameters, or of rates, that version 2 had some steps later.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write;
use std::ptr::{null, null_mut};

use bitstep::hyper::{Args, Value};
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::NAMES;
use bitstep_capi::*;
use half::bf16;

/// The arguments that a schedule requires.
fn schedule_args(name: &str) -> &'static str {
    match name {
        "cosine" | "cosine_with_restarts" | "linear" => "num_warmup_steps=2, num_training_steps=9",
        "cosine_with_min_lr" | "cosine_warmup_with_min_lr" => {
            "num_warmup_steps=2, num_training_steps=9, min_lr=1e-3"
        }
        "constant_with_warmup" | "inverse_sqrt" => "num_warmup_steps=2",
        "create_optimizer" => "init_lr=0.02, num_train_steps=9, num_warmup_steps=2",
        "greedy" => "patience=0, smooth=True, window_size=2, min_lr=1e-4",
        "polynomial" => "num_warmup_steps=2, num_training_steps=9, lr_end=1e-4",
        "reduce_lr_on_plateau" => "patience=0, cooldown=1",
        "torch_chained" => r#"{"schedulers": [["torch_exponential", {"gamma": 0.9}]]}"#,
        "torch_cosine_annealing" => "T_max=4",
        "torch_cosine_annealing_warm_restarts" => "T_0=2",
        "torch_cyclic" => "base_lr=0.01, max_lr=0.02",
        "torch_exponential" => "gamma=0.9",
        "torch_multi_step" => r#"{"milestones": [1, 4]}"#,
        "torch_one_cycle" => "max_lr=0.02, total_steps=9",
        "torch_sequential" => {
            r#"{"schedulers": [["torch_exponential", {"gamma": 0.9}], ["torch_step", {"step_size": 2}]], "milestones": [2]}"#
        }
        "torch_step" => "step_size=2",
        "warm_up" => "initial_learning_rate=0.02, warmup_steps=2, decay_schedule_fn=0.01",
        "warmup_stable_decay" => "num_warmup_steps=2, num_decay_steps=3, num_stable_steps=2",
        _ => "",
    }
}

/// Arguments that quantize the state of small tensors too.
fn optimizer_args(name: &str) -> &'static str {
    let built = bitstep::registry::optimizer(name, Args::new()).unwrap();
    let hyper = Args::of(built.clone().rule.hyper_params());
    let low_rank = hyper.get("rank").is_some();
    match hyper.get("optim_bits").and_then(Value::as_u64) {
        Some(8) if low_rank => "rank=2, min_8bit_size=8",
        Some(8) => "min_8bit_size=8",
        _ if low_rank => "rank=2",
        _ => "",
    }
}

/// A call's status and message.
fn told(call: impl FnOnce(*mut ErrorMessage) -> i32) -> (i32, String) {
    let mut error = ErrorMessage { message: [0; 256] };
    let status = call(&mut error);
    let text = error.message.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    (status, String::from_utf8(text).unwrap())
}

fn text(s: &str) -> CString {
    CString::new(s).unwrap()
}

fn numbers(len: usize, salt: u64) -> impl Iterator<Item = f64> {
    (0..len as u64).map(move |i| {
        let x = (i ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        (x.wrapping_mul(salt | 1) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

/// An optimizer with a wide and a narrow matrix and, where the rule takes vectors, a vector.
struct Toy {
    optimizer: *mut Optimizer,
    single: Vec<f32>,
    narrow: Vec<bf16>,
    double: Vec<f64>,
}

impl Toy {
    fn new(name: &str) -> Toy {
        let (mut optimizer, mut group) = (null_mut(), 0);
        // Quantized to 4 and 8 bits from this length on, whatever the arguments are.
        let large = ["adamw_torch_4bit", "adamw_torch_8bit", "torchao_adam_fp8"].contains(&name);
        let narrow = if large { 4096 } else { 32 };
        let (shapes, dtypes) = ([[4, 8], [2, narrow / 2]], [BITSTEP_F32, BITSTEP_BF16]);
        let (name, args) = (text(name), text(optimizer_args(name)));
        let mut double = Vec::new();
        // SAFETY: live strings and outputs.
        unsafe {
            assert_eq!(bitstep_optimizer_new(&mut optimizer, null_mut()), BITSTEP_OK);
            let (name, args) = (name.as_ptr(), args.as_ptr());
            let added = bitstep_optimizer_add_group(optimizer, name, args, &mut group, null_mut());
            assert_eq!(added, BITSTEP_OK, "{name:?}");
            for (shape, dtype) in shapes.iter().zip(dtypes) {
                let shape = shape.as_ptr();
                let added = bitstep_optimizer_add_param(optimizer, 0, shape, 2, dtype, null_mut());
                assert_eq!(added, BITSTEP_OK);
            }
            let added =
                bitstep_optimizer_add_param(optimizer, 0, [3].as_ptr(), 1, BITSTEP_F64, null_mut());
            if added == BITSTEP_OK {
                double.extend(numbers(3, 3));
            }
        }
        let single = numbers(32, 1).map(|x| x as f32).collect();
        let narrow = numbers(narrow, 2).map(bf16::from_f64).collect();
        Toy { optimizer, single, narrow, double }
    }

    fn step(&mut self, t: u64) {
        let grads: Vec<f32> = numbers(4096, 1000 + t).map(|x| x as f32).collect();
        let tensor = |data, len, dtype| {
            let grad = grads.as_ptr().cast();
            Tensor { data, len, dtype, grad_dtype: BITSTEP_F32, grad }
        };
        let tensors = [
            tensor(self.single.as_mut_ptr().cast(), 32, BITSTEP_F32),
            tensor(self.narrow.as_mut_ptr().cast(), self.narrow.len(), BITSTEP_BF16),
            tensor(self.double.as_mut_ptr().cast(), 3, BITSTEP_F64),
        ];
        let count = if self.double.is_empty() { 2 } else { 3 };
        // SAFETY: a live handle, and live tensors.
        unsafe {
            let (o, list) = (self.optimizer, tensors.as_ptr());
            assert_eq!(
                bitstep_optimizer_set_lr(o, 0, 0.01 / (t + 1) as f64, null_mut()),
                BITSTEP_OK
            );
            assert_eq!(bitstep_optimizer_step(o, list, count, null(), 0, null_mut()), BITSTEP_OK);
        }
    }

    fn saved(&self) -> Vec<u8> {
        let mut size = 0;
        // SAFETY: a live handle, and memory of the stated length.
        unsafe {
            assert_eq!(
                bitstep_optimizer_save_size(self.optimizer, &mut size, null_mut()),
                BITSTEP_OK
            );
            let mut memory = vec![0; size];
            let to = memory.as_mut_ptr();
            assert_eq!(bitstep_optimizer_save(self.optimizer, to, size, null_mut()), BITSTEP_OK);
            memory
        }
    }

    fn load(&mut self, bytes: &[u8]) -> (i32, String) {
        // SAFETY: a live handle, and memory of the stated length.
        told(|e| unsafe { bitstep_optimizer_load(self.optimizer, bytes.as_ptr(), bytes.len(), e) })
    }

    /// The bits of the parameters two steps later: the first of them, and a sum over all.
    fn told(mut self) -> String {
        (3..5).for_each(|t| self.step(t));
        let single = self.single.iter().flat_map(|x| x.to_le_bytes());
        let narrow = self.narrow.iter().flat_map(|x| x.to_le_bytes());
        let double = self.double.iter().flat_map(|x| x.to_le_bytes());
        let all: Vec<u8> = single.chain(double).chain(narrow).collect();
        let sum = all.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, &b| {
            (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        // SAFETY: it is not used afterwards.
        unsafe { bitstep_optimizer_free(self.optimizer) };
        format!("{} {sum:016x}", hex(&all[..216.min(all.len())]))
    }
}

fn made(name: &str) -> *mut Schedule {
    let (name, args, mut schedule) = (text(name), text(schedule_args(name)), null_mut());
    // SAFETY: live strings and outputs.
    let made =
        unsafe { bitstep_schedule_new(name.as_ptr(), args.as_ptr(), &mut schedule, null_mut()) };
    assert_eq!(made, BITSTEP_OK, "{name:?}");
    schedule
}

fn schedule_step(schedule: *mut Schedule, name: &str, t: u32) -> String {
    let metric = [f64::from((t * 7) % 5)];
    let listens = ["reduce_lr_on_plateau", "greedy", "adafactor_schedule"].contains(&name);
    let (pointer, mut lr) = (if listens { metric.as_ptr() } else { null() }, 0.0);
    // SAFETY: a live schedule, and live outputs.
    unsafe {
        let stepped = bitstep_schedule_step(schedule, pointer, listens.into(), null_mut());
        assert_eq!(stepped, BITSTEP_OK, "{name} {t}");
        assert_eq!(bitstep_schedule_lr(schedule, 0, &mut lr, null_mut()), BITSTEP_OK);
    }
    format!("{:016x}", lr.to_bits())
}

fn schedule_saved(schedule: *const Schedule) -> Vec<u8> {
    let mut size = 0;
    // SAFETY: a live schedule, and memory of the stated length.
    unsafe {
        assert_eq!(bitstep_schedule_save_size(schedule, &mut size, null_mut()), BITSTEP_OK);
        let mut memory = vec![0; size];
        assert_eq!(
            bitstep_schedule_save(schedule, memory.as_mut_ptr(), size, null_mut()),
            BITSTEP_OK
        );
        memory
    }
}

fn schedule_load(schedule: *mut Schedule, bytes: &[u8]) -> (i32, String) {
    // SAFETY: a live schedule, and memory of the stated length.
    told(|e| unsafe { bitstep_schedule_load(schedule, bytes.as_ptr(), bytes.len(), e) })
}

/// The rates of the next steps.
fn schedule_told(schedule: *mut Schedule, name: &str) -> String {
    let rates: Vec<_> = (3..7).map(|t| schedule_step(schedule, name, t)).collect();
    // SAFETY: it is not used afterwards.
    unsafe { bitstep_schedule_free(schedule) };
    rates.join(" ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_state_loads_and_goes_on_with_the_same_bits() {
    let text = include_str!("saved/2.txt");
    let lines = text.lines().map(|line| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (name, bytes) = (words.next().unwrap(), words.next().unwrap());
        (name, (from_hex(&bytes), words.next().unwrap()))
    });
    let mut expected: BTreeMap<String, (Vec<u8>, String)> = lines.collect();
    assert_eq!(expected.len(), 78 + 27); // all names of version 2; each is taken out below
    for entry in OPTIMIZERS {
        // Version 2 did not save names that were added later.
        let Some((bytes, told)) = expected.remove(entry.name) else { continue };
        let mut toy = Toy::new(entry.name);
        assert_eq!(toy.load(&bytes), (BITSTEP_OK, String::new()), "{}", entry.name);
        // State saved by this version loads to the same.
        let mut again = Toy::new(entry.name);
        assert_eq!(again.load(&toy.saved()), (BITSTEP_OK, String::new()), "{}", entry.name);
        assert!(again.saved() == toy.saved(), "{}", entry.name);
        assert_eq!(again.told(), told, "{}", entry.name);
        assert_eq!(toy.told(), told, "{}", entry.name);
    }
    for name in NAMES {
        let Some((bytes, told)) = expected.remove(*name) else { continue };
        let (schedule, again) = (made(name), made(name));
        assert_eq!(schedule_load(schedule, &bytes), (BITSTEP_OK, String::new()), "{name}");
        let new = schedule_saved(schedule);
        assert_eq!(schedule_load(again, &new), (BITSTEP_OK, String::new()), "{name}");
        assert!(schedule_saved(again) == new, "{name}");
        assert_eq!(schedule_told(schedule, name), told, "{name}");
        assert_eq!(schedule_told(again, name), told, "{name}");
    }
    assert!(expected.is_empty(), "{:?}", expected.keys());
}

#[test]
fn state_of_another_version_or_kind_is_refused() {
    let mut toy = Toy::new("adamw_torch");
    let schedule = made("constant");
    let (state, rates) = (toy.saved(), schedule_saved(schedule));
    let mut refused = |state: &[u8], rates: &[u8], what: &str| {
        let expected = (BITSTEP_STATE, format!("saved state: {what}"));
        assert_eq!(toy.load(state), expected);
        assert_eq!(schedule_load(schedule, rates), expected);
    };
    for version in [0, 1, 2, 4, 256, u64::MAX] {
        let other = |bytes: &[u8]| [&bytes[..8], &version.to_le_bytes(), &bytes[16..]].concat();
        let what = format!("version is {version}, but must be 3");
        refused(&other(&state), &other(&rates), &what);
    }
    let what = "wanted state of this kind: its first 8 bytes say of which";
    refused(&rates, &state, what);
    for last in [1, b'1', b'3', 255] {
        let other = |bytes: &[u8]| [&bytes[..7], &[last], &bytes[8..]].concat();
        refused(&other(&state), &other(&rates), what);
    }
    // SAFETY: they are not used afterwards.
    unsafe {
        bitstep_optimizer_free(toy.optimizer);
        bitstep_schedule_free(schedule);
    }
}
