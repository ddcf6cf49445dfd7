//! Runs plans on the cores of this machine.
//!
//! A plan becomes a flat list of instructions over memory laid out in advance ([`compile`]); a run
//! walks that list and divides what is worth dividing over persistent threads ([`pool`]). Numbers
//! are `kernels-cpu`'s: no bit depends on threads, instruction set, batch mates or chunking.

#![allow(unsafe_code, reason = "threads share one arena, each writing its own part of it")]

mod check;
mod code;
mod compile;
mod execute;
mod frame;
mod layout;
mod pool;
mod run;
mod size;
mod support;

use kernels_cpu::Isa;
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, MemoryMap, NodeView,
    RawRows, StatePager, StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;

use self::pool::Pool;

/// Runs plans on the cores of this machine.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    activations: Activations,
    pool: Pool,
}

/// What activations are rounded to before they meet quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activations {
    /// 8 bits for each block of 32, as other engines do: twice as fast on long prompts.
    Int8,
    /// About 16 bits, as the sum of two bytes: the weights are read once all the same.
    Int16,
}

impl Activations {
    /// Quantized rows that make one row.
    fn terms(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Int16 => 2,
        }
    }
}

impl Capability for Cpu {
    const NAME: &'static str = "cpu";

    fn from_config(config: &Config) -> Result<Self> {
        let available = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let threads = config.count_or("threads", available.min(THREADS_MAX), 1..=THREADS_MAX)?;
        let isa = match isa_of(config.one_of("isa", &["auto", "amx", "avx512", "avx2", "scalar"])?)
        {
            Some(isa) => isa,
            None => Isa::detect_up_to(isa_cap()?),
        };
        if !isa.is_available() {
            let needs = match isa {
                Isa::Amx => "this processor or its system lacks AMX with INT8, or AVX-512",
                Isa::Avx512 => "this processor lacks one of AVX-512 F, BW, VL, DQ, VNNI",
                _ => "this processor lacks one of AVX2, FMA, F16C",
            };
            return Err(Error::unsupported(format!("isa {isa:?}"), needs));
        }
        let activations = match config.one_of("activations", &["int16", "int8"])? {
            "int8" => Activations::Int8,
            _ => Activations::Int16,
        };
        Ok(Self { isa, activations, pool: Pool::new(threads as usize)? })
    }
}

impl Backend for Cpu {
    fn domains(&self) -> Vec<DomainDesc> {
        vec![DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None }]
    }

    fn kernels(&self) -> String {
        self.isa.name().to_owned()
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        support::support(node)
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        layout::layout(weight, lowering)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        layout::pack(raw, layout, out)
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        let code = compile::compile(plan, bucket, memory, self.activations.terms())?;
        Ok(Exe::new(code.scratch_bytes, code))
    }

    fn run(&self, exe: &Exe, _stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        run::run(exe.code()?, self.isa, &self.pool, bind, None)?;
        Ok(Fence::Done)
    }

    fn can_page(&self) -> bool {
        true
    }

    fn run_paged(
        &self,
        exe: &Exe,
        _stream: StreamId,
        bind: &mut Bindings<'_>,
        pager: &mut dyn StatePager,
    ) -> Result<Fence> {
        run::run(exe.code()?, self.isa, &self.pool, bind, Some(pager))?;
        Ok(Fence::Done)
    }
}

export_plugin!(Cpu);

/// The instruction set of a name of the configuration.
fn isa_of(name: &str) -> Option<Isa> {
    match name {
        "amx" => Some(Isa::Amx),
        "avx512" => Some(Isa::Avx512),
        "avx2" => Some(Isa::Avx2),
        "scalar" => Some(Isa::Scalar),
        _ => None,
    }
}

/// The best instruction set that [`ISA_VARIABLE`] allows.
fn isa_cap() -> Result<Isa> {
    let Some(value) = std::env::var_os(ISA_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(Isa::Amx);
    };
    let known = value.to_str().and_then(isa_of);
    let expected = "scalar, avx2, avx512 or amx";
    known.ok_or_else(|| Error::malformed(ISA_VARIABLE, expected, value.display()))
}

/// Caps the instruction set of backends whose configuration names none.
const ISA_VARIABLE: &str = "JACKFIELD_CPU_ISA";

/// Most threads that a configuration may ask for.
const THREADS_MAX: u64 = 256;

#[cfg(test)]
mod tests;
