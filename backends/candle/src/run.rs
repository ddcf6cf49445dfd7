//! Walks the instructions of a compiled plan.

use candle_core::{Device, Tensor};
use plugin_api::kinds::backend::Bindings;
use plugin_api::{Error, Result, TensorMut, TensorRef};

use crate::compile::{Code, Instruction, Slot, Work};
use crate::fault::{Fault, Outcome};

/// Runs a plan once. Outputs are written after everything has been computed.
pub(crate) fn run(code: &Code, bind: &mut Bindings<'_>) -> Result<()> {
    code.check.check(bind)?;
    let mut values: Vec<Option<Tensor>> = vec![None; code.num_values];
    for (slot, input) in code.inputs.iter().zip(bind.inputs) {
        let tensor = given(input, &slot.shape(bind.sizes));
        values[slot.value] = Some(tensor.map_err(|fault| fault.during("input"))?);
    }
    let weights = code.weights.tensors(bind.weights)?;
    for (&value, tensor) in code.weight_values.iter().zip(weights) {
        values[value] = Some(tensor);
    }
    for instruction in &code.instructions {
        let args: Option<Vec<&Tensor>> =
            instruction.args.iter().map(|&value| values[value].as_ref()).collect();
        let args = args.ok_or_else(|| Error::malformed("plan", "values in order", "a gap"))?;
        let results = step(instruction, &args, bind.sizes, bind.state);
        let results = results.map_err(|fault| fault.during(instruction.name))?;
        for (slot, result) in instruction.results.iter().zip(results) {
            values[slot.value] = Some(result);
        }
        for &value in &instruction.drops {
            values[value] = None;
        }
    }
    write(&code.outputs, &values, bind).map_err(|fault| fault.during("output"))
}

fn given(input: &TensorRef<'_>, shape: &[usize]) -> Outcome<Tensor> {
    Ok(match input {
        TensorRef::F64(x) => Tensor::from_slice(x, shape, &Device::Cpu)?,
        TensorRef::F32(x) => Tensor::from_slice(x, shape, &Device::Cpu)?,
        TensorRef::U32(x) => Tensor::from_slice(x, shape, &Device::Cpu)?,
    })
}

/// Results have the shape and dtype that the plan says, whatever candle made of them.
fn step(
    instruction: &Instruction,
    args: &[&Tensor],
    sizes: &[usize],
    state: &mut [u8],
) -> Outcome<Vec<Tensor>> {
    let slots = &instruction.results;
    let shapes: Vec<Vec<usize>> = slots.iter().map(|slot| slot.shape(sizes)).collect();
    let results = match &instruction.work {
        Work::Op(op) => {
            op.check_indices(args)?;
            // candle refuses some ops on tensors without elements.
            if shapes.iter().all(|shape| shape.contains(&0)) {
                let empty = |(slot, shape): (&Slot, &Vec<usize>)| {
                    Tensor::zeros(&shape[..], slot.dtype, &Device::Cpu).map_err(Fault::from)
                };
                return slots.iter().zip(&shapes).map(empty).collect();
            }
            let (Some(slot), Some(shape)) = (slots.first(), shapes.first()) else {
                return Err(Error::shape(instruction.name, "a result", "none").into());
            };
            op.run(args, slot.dtype, shape)?
        }
        Work::Attend(attend) => vec![attend.run(args, state)?],
    };
    let fitted =
        results.into_iter().zip(slots.iter().zip(&shapes)).map(|(result, (slot, shape))| {
            if result.dims() == shape {
                Ok(result.to_dtype(slot.dtype)?.contiguous()?)
            } else {
                let (expected, found) = (format!("{shape:?}"), format!("{:?}", result.dims()));
                Err(Error::shape(instruction.name, expected, found).into())
            }
        });
    fitted.collect()
}

fn write(outputs: &[usize], values: &[Option<Tensor>], bind: &mut Bindings<'_>) -> Outcome<()> {
    let missing = || Fault::from(Error::malformed("plan", "outputs that are computed", "a gap"));
    let flat = |&value: &usize| Ok(values[value].as_ref().ok_or_else(missing)?.flatten_all()?);
    let results: Vec<Tensor> = outputs.iter().map(flat).collect::<Outcome<_>>()?;
    for (output, result) in bind.outputs.iter_mut().zip(results) {
        match output {
            TensorMut::F64(out) => out.copy_from_slice(&result.to_vec1()?),
            TensorMut::F32(out) => out.copy_from_slice(&result.to_vec1()?),
            TensorMut::U32(out) => out.copy_from_slice(&result.to_vec1()?),
        }
    }
    Ok(())
}
