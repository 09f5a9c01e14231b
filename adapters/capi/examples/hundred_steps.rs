//! The steps of the C and C++ examples with the core alone: all print the same bits.

use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::Value;
use bitstep::prelude::*;
use bitstep::schedule::build;
use half::bf16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let adamw = registry::optimizer("adamw_torch", &Args::parse("lr=1e-2, weight_decay=0.1")?)?;
    let flash = registry::optimizer("flash_adamw", &Args::parse("lr=1e-2")?)?;
    let mut optimizer = Optimizer::new(adamw)?;
    let a_id = optimizer.add_param(&[3, 2], Dtype::F32)?;
    optimizer.add_group(flash)?;
    let b_id = optimizer.add_param(&[40], Dtype::Bf16)?;
    let args = Args::parse("lr=1e-2, num_warmup_steps=10, num_training_steps=100")?;
    let groups = Value::List(vec![Value::Map(Vec::new()); 2]);
    let mut schedule = build("cosine", &args.with("groups", groups))?;

    let mut a: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
    let mut b: Vec<bf16> = (0..40).map(|i| bf16::from_bits(0x3f80 + i)).collect();
    for _ in 0..100 {
        // The gradients of half the squares; the first is clipped.
        let mut grad_a = a.clone();
        ClipGradNorm::default().clip(&mut [DataMut::F32(&mut grad_a)])?;
        let grad_b = b.clone();
        for (group, &lr) in optimizer.groups_mut().iter_mut().zip(schedule.lrs()) {
            group.lr = lr;
        }
        optimizer.step([
            (a_id, DataMut::F32(&mut a), Data::F32(&grad_a)),
            (b_id, DataMut::Bf16(&mut b), Data::Bf16(&grad_b)),
        ])?;
        schedule.step(&[])?;
    }
    a.iter().for_each(|x| println!("{:08x}", x.to_bits()));
    b.iter().for_each(|x| println!("{:04x}", x.to_bits()));
    Ok(())
}
