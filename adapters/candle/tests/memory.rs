//! Variables and gradients that share memory are refused before anything moves.

use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_candle::{Optimizer, Training};
use candle_core::{DType, Device, Result, Tensor, Var};

fn variable(start: f32) -> Var {
    let numbers = Tensor::arange(start, start + 6.0, &Device::Cpu).unwrap();
    Var::from_tensor(&numbers).unwrap()
}

fn ones() -> Tensor {
    Tensor::ones(6, DType::F32, &Device::Cpu).unwrap()
}

fn optimizer(vars: &[Var]) -> Result<Optimizer> {
    let mut optimizer = Optimizer::empty();
    let spec = registry::optimizer("adamw_torch", Args::new().with("lr", 0.1)).unwrap();
    let named = vars.iter().enumerate().map(|(i, var)| (format!("v{i}"), var.clone()));
    optimizer.add_group(spec, named)?;
    Ok(optimizer)
}

/// Everything that a step may modify.
fn all(vars: &[Var], optimizer: &Optimizer) -> String {
    let numbers: Vec<Vec<f32>> = vars.iter().map(|v| v.to_vec1().unwrap()).collect();
    format!("{numbers:?} {:?}", optimizer.inner())
}

#[test]
fn a_variable_that_is_added_twice_is_refused() {
    let (a, b) = (variable(0.0), variable(10.0));
    let error = optimizer(&[a.clone(), b.clone(), a.clone()]).unwrap_err().to_string();
    assert!(error.contains("variable `v0` and variable `v2` share memory"), "{error}");
    optimizer(&[a, b]).unwrap();
    // Tensors without elements share no memory.
    let empty = Var::zeros(0, DType::F32, &Device::Cpu).unwrap();
    optimizer(&[empty.clone(), empty]).unwrap();
}

#[test]
fn a_gradient_that_is_a_variable_is_refused_before_anything_moves() {
    let vars = [variable(0.0), variable(10.0)];
    let (first, last) = (vars[0].as_detached_tensor(), vars[1].as_detached_tensor());
    let wide = Var::from_tensor(&Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap()).unwrap();
    let half = wide.as_detached_tensor().narrow(0, 3, 6).unwrap();
    let three = [vars[0].clone(), vars[1].clone(), wide];
    for (grads, expected) in [
        ([ones(), last.clone()], "`v1` and the gradient of `v1`"),
        ([ones(), first.clone()], "`v0` and the gradient of `v1`"),
        ([last, ones()], "`v1` and the gradient of `v0`"),
        ([ones(), half], "`v2` and the gradient of `v1`"),
    ] {
        let mut optimizer = optimizer(&three).unwrap();
        let before = all(&vars, &optimizer);
        let grads: Vec<_> = grads.into_iter().map(Some).chain([None]).collect();
        let error = optimizer.step_with(grads.clone(), &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(all(&vars, &optimizer), before);

        // In a gradient store too: clipping writes to gradients.
        let mut store = three[2].sum_all().unwrap().backward().unwrap();
        store.remove(&three[2]);
        for (var, grad) in vars.iter().zip(grads.iter().flatten()) {
            store.insert(var, grad.clone());
        }
        assert!(optimizer.clip_grad_norm(&store, &ClipGradNorm::default()).is_err());
        assert!(optimizer.step_with_extra_args(&store, &[]).is_err());
        assert!(optimizer.step_and_free(&mut store, &[]).is_err());
        assert_eq!(all(&vars, &optimizer), before);

        let mut training = Training::of(optimizer).unwrap();
        training.set_clip(Some(ClipGradNorm::default()));
        assert!(training.micro_batch(grads, &[]).is_err());
        assert_eq!(all(&vars, training.optimizer()), before);
    }
}

#[test]
fn gradients_that_share_memory_are_read_but_not_scaled_in_place() {
    let vars = [variable(0.0), variable(10.0)];
    let both = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap();
    let parts = |start: usize| both.narrow(0, start, 6).unwrap();
    let grads = |start: usize| vec![Some(parts(0)), Some(parts(start))];
    let mut training = Training::of(optimizer(&vars).unwrap()).unwrap();
    training.micro_batch(grads(3), &[]).unwrap();
    training.set_clip(Some(ClipGradNorm::default()));
    training.micro_batch(grads(3), &[]).unwrap();
    assert_eq!(both.to_vec1::<f32>().unwrap()[11], 11.0, "it scales copies");
    let mut store = vars[0].sum_all().unwrap().backward().unwrap();
    for (var, grad) in vars.iter().zip(grads(3).into_iter().flatten()) {
        store.insert(var, grad);
    }
    let clipped = training.optimizer().clip_grad_norm(&store, &ClipGradNorm::default());
    let error = clipped.unwrap_err().to_string();
    assert!(error.contains("the gradient of `v0` and the gradient of `v1`"), "{error}");
    assert_eq!(both.to_vec1::<f32>().unwrap()[11], 11.0);
    training.micro_batch(grads(6), &[]).unwrap(); // disjoint parts of one storage
}
