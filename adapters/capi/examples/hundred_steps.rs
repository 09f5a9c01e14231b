//! What the C and C++ examples do, with the core alone: they must print the same bits.

use bitstep::float::Dtype;
use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::Args;
use bitstep::optimizer::{Optimizer, Param};
use bitstep::registry;
use bitstep::schedule::build;
use bitstep::storage::{Data, DataMut};
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut optimizer = Optimizer::empty();
    let adamw = registry::optimizer("adamw_torch", &Args::parse("lr=1e-2, weight_decay=0.1")?)?;
    let flash = registry::optimizer("flash_adamw", &Args::parse("lr=1e-2")?)?;
    let (adamw, flash) = (optimizer.add_group(adamw)?, optimizer.add_group(flash)?);
    optimizer.add_param_to(adamw, &[3, 2], Dtype::F32)?;
    optimizer.add_param_to(flash, &[40], Dtype::Bf16)?;
    let args = Args::parse("lr=1e-2, num_warmup_steps=10, num_training_steps=100")?;
    let groups = bitstep::hyper::Value::List(vec![bitstep::hyper::Value::Map(Vec::new()); 2]);
    let mut schedule = build("cosine", &args.with("groups", groups))?;

    let mut a: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
    let mut b: Vec<bf16> = (0..40).map(|i| bf16::from_bits(0x3f80 + i)).collect();
    for _ in 0..100 {
        // The gradient of half the square, and a clipped one.
        let mut grad_a = a.clone();
        ClipGradNorm::default().clip(&mut [DataMut::F32(&mut grad_a)])?;
        let grad_b = b.clone();
        for (group, &lr) in optimizer.groups_mut().iter_mut().zip(schedule.lrs()) {
            group.lr = lr;
        }
        optimizer.step_all(
            &mut [
                Param { value: DataMut::F32(&mut a), grad: Some(Data::F32(&grad_a)) },
                Param { value: DataMut::Bf16(&mut b), grad: Some(Data::Bf16(&grad_b)) },
            ],
            &[],
        )?;
        schedule.step(&[])?;
    }
    a.iter().for_each(|x| println!("{:08x}", x.to_bits()));
    b.iter().for_each(|x| println!("{:04x}", x.to_bits()));
    Ok(())
}
