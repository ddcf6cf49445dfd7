//! A plugin of every kind whose methods do as they are told: work, fail, panic or lie.

mod memory;
mod processor;
mod training;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use plugin_api::host::{Command, HttpPiece};
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, LayoutId, MemoryMap,
    NodeView, RawForm, RawRows, RawValues, StreamId, Support, WeightDesc,
};
use plugin_api::kinds::hook::Hook;
use plugin_api::prelude::*;
use plugin_api::{Registrar, TensorMut, TensorRef};

/// What is configured: `panics`, `fails` and `lies` name a method.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    panics: String,
    fails: String,
    pub(crate) lies: String,
    /// Committed tokens of each sequence of a cache.
    seqs: Vec<u32>,
    blocks: Vec<u32>,
}

pub(crate) fn register(registrar: &mut Registrar) {
    registrar.provide::<dyn Adapter, Subject>();
    registrar.provide::<dyn Backend, Subject>();
    registrar.provide::<dyn Compressor, Subject>();
    registrar.provide::<dyn Curriculum, Subject>();
    registrar.provide::<dyn DecodingStrategy, Subject>();
    registrar.provide::<dyn Encoder, Subject>();
    registrar.provide::<dyn FeedForward, Subject>();
    registrar.provide::<dyn Hook, Subject>();
    registrar.provide::<dyn KvCache, Subject>();
    registrar.provide::<dyn LogitsProcessor, Subject>();
    registrar.provide::<dyn LrSchedule, Subject>();
    registrar.provide::<dyn Memory, Subject>();
    registrar.provide::<dyn Mixer, Subject>();
    registrar.provide::<dyn ModelSource, Subject>();
    registrar.provide::<dyn MoeRouter, Subject>();
    registrar.provide::<dyn Norm, Subject>();
    registrar.provide::<dyn Objective, Subject>();
    registrar.provide::<dyn Optimizer, Subject>();
    registrar.provide::<dyn OutputParser, Subject>();
    registrar.provide::<dyn Quantizer, Subject>();
    registrar.provide::<dyn Residual, Subject>();
    registrar.provide::<dyn Reward, Subject>();
    registrar.provide::<dyn RotaryEmbedding, Subject>();
    registrar.provide::<dyn Scheduler, Subject>();
}

/// An error with all of its fields in use.
pub(crate) fn denied(method: &str) -> Error {
    Error::Denied {
        plugin: "subject".to_owned(),
        service: "files".into(),
        wanted: format!("/{method}"),
        grant: "`read = [\"/\"]` in [grants.subject]".to_owned(),
    }
}

impl Subject {
    pub(crate) fn at(&self, method: &str) -> Result<()> {
        assert!(self.panics != method, "on purpose, in {method}");
        if self.fails == method { Err(denied(method)) } else { Ok(()) }
    }

    pub(crate) fn at_most_panics(&self, method: &str) {
        assert!(self.panics != method, "on purpose, in {method}");
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        assert!(self.panics != "drop", "on purpose, in drop");
    }
}

impl Capability for Subject {
    const NAME: &'static str = "subject";

    fn from_config(config: &Config) -> Result<Self> {
        let text = |key| config.text_or(key, "").map(str::to_owned);
        let (panics, fails, lies) = (text("panics")?, text("fails")?, text("lies")?);
        let subject = Self { panics, fails, lies, seqs: vec![0; 4], blocks: Vec::new() };
        subject.at("from_config")?;
        Ok(subject)
    }
}

impl Scheduler for Subject {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.at("pick")?;
        let mut left = limits.tokens;
        for (index, waiting) in queue.iter().enumerate().rev().take(limits.seqs) {
            let tokens = waiting.pending.min(left);
            let is_chosen = waiting.priority > 0 || waiting.is_running || waiting.is_atomic;
            if tokens > 0 && is_chosen {
                out.push(Picked { index, tokens });
                left -= tokens;
            }
        }
        Ok(())
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.at_most_panics("handover");
        if self.lies == "no handover" { None } else { Some(self) }
    }
}

impl Traced for Subject {
    fn semantic_id(&self) -> SemanticId {
        self.at_most_panics("semantic_id");
        SemanticId::new("subject/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        self.at("trace")?;
        if self.lies == "trace" {
            return Ok(vec![Val(1_000)]);
        }
        let eps = at.config.number("eps", 0.0..=1.0)?;
        let w = g.weight("norm.weight")?;
        let mut y = fused::rms_norm(g, x[0], w, eps, 0.0)?;
        if g.has_weight("proj.weight") && !g.has_weight("none") {
            y = g.linear(y, "proj")?;
        }
        let extra = g.input("extra", Spec::f32([Dim::TOKENS, g.spec(y).width()?.into()]))?;
        let name = format!("layers.{}.kept", at.index);
        let part = Part { name: "kept".to_owned(), dims: vec![2, 3] };
        g.state(StateSpec { name, per: Per::Sequence, parts: vec![part] })?;
        let called = g.call("route", &[y, extra], &[Spec::f32([Dim::TOKENS])])?;
        g.output("routed", called[0])?;
        Ok(vec![g.add(y, extra)?, called[0]])
    }

    /// The sum of each row of the first input, and where it lies.
    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        self.at("call")?;
        let ([x, ..], [sums, places]) = (inputs, outputs) else {
            return Err(Error::unsupported(format!("callback `{callback}`"), "two outputs"));
        };
        let width = x.dims[1];
        sums.values.f32s_mut()?.iter_mut().zip(x.values.f32s()?.chunks(width)).for_each(
            |(y, x)| {
                *y = x.iter().sum();
            },
        );
        places.values.u32s_mut()?.iter_mut().zip(0..).for_each(|(y, i)| *y = i);
        Ok(())
    }
}

impl Norm for Subject {}
impl Residual for Subject {}
impl FeedForward for Subject {}
impl MoeRouter for Subject {}
impl Encoder for Subject {}
impl Objective for Subject {}
impl Optimizer for Subject {}
impl LrSchedule for Subject {}
impl Adapter for Subject {}

impl Mixer for Subject {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        self.at("state")?;
        let dims = vec![at.index, at.config.count("width", 1..=9)? as u32];
        let parts = vec![Part { name: "key".to_owned(), dims }];
        Ok(StateSpec { name: "kept".to_owned(), per: Per::Token { window: 7 }, parts })
    }
}

impl RotaryEmbedding for Subject {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        self.at("rotation")?;
        let theta = config.number("theta", 1.0..=1e9)? as f32;
        let inv_freq = vec![1.0, 1.0 / theta];
        Ok(Rotation { inv_freq, pairing: Pairing::Interleaved, attention_factor: 0.5 })
    }
}

/// Blocks of 16 bytes of codes and a scale.
impl Quantizer for Subject {
    fn format(&self) -> FormatDesc {
        self.at_most_panics("format");
        let (block_len, block_bytes) = match &*self.lies {
            "block_len" => (0, 20),
            "block_bytes" => (16, 0),
            "huge" => (usize::MAX, 20),
            _ => (16, 20),
        };
        let semantic_id = SemanticId::new("q/1");
        FormatDesc { name: "Q".into(), block_len, block_bytes, semantic_id }
    }

    fn lowering(&self) -> Lowering {
        let group = match &*self.lies {
            "group" => 0,
            "odd group" => 24,
            _ => 16,
        };
        let bits = if self.lies == "bits" { 40 } else { 8 };
        if self.lies == "table" {
            return Lowering::Table { bits: 4, table: vec![0.0; 3], group: 16 };
        }
        let scales = match &*self.lies {
            "run" => Scales::Product { groups: 0 },
            "long run" => Scales::Product { groups: 2 },
            _ => Scales::F32,
        };
        Lowering::Affine { bits, group, zero_point: 3, has_min: false, scales }
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.at("decode")?;
        self.format().check(blocks.len(), out.len())?;
        for (block, out) in blocks.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<16>().0) {
            let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            for (code, x) in block[4..].iter().zip(out) {
                *x = (f32::from(*code) - 3.0) * scale;
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        rows: &[f32],
        calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        self.at("encode")?;
        self.format().check(out.len(), rows.len())?;
        let weight = calibration.map_or(Ok(1.0), |c| c.importance(0, 16).map(|x| x[0]))?;
        for (rows, block) in rows.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<20>().0) {
            block[..4].copy_from_slice(&weight.to_le_bytes());
            for (x, code) in rows.iter().zip(&mut block[4..]) {
                *code = (x / weight + 3.0) as u8;
            }
        }
        Ok(())
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        self.at("unpack")?;
        out.check(&self.format(), &self.lowering(), blocks.len())?;
        for (i, block) in blocks.as_chunks::<20>().0.iter().enumerate() {
            out.scales[i] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            out.codes[i * 16..][..16].copy_from_slice(&block[4..]);
        }
        Ok(())
    }
}

/// One block a sequence and a shared one: enough to lie with.
impl KvCache for Subject {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        self.at("pool")?;
        let (block_size, num_blocks) = match &*self.lies {
            "pool" => (0, 8),
            "huge pool" => (4, usize::MAX / 8),
            _ => (4, limits.num_seqs_max * 2),
        };
        let (storage, blocks_per_seq_max) = (vec![Storage::Plain(DType::F32); states.len()], 2);
        let semantic_id = SemanticId::new(format!("{} states", states.len()));
        Ok(PoolSpec { block_size, num_blocks, blocks_per_seq_max, storage, semantic_id })
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        self.at("reserve")?;
        let held = self.seqs[seq.0 as usize] as usize + tokens;
        self.blocks.clear();
        self.blocks.extend((0..held.div_ceil(4) as u32).map(|i| seq.0 * 2 + i));
        if seq.0 == 1 {
            moves.push(BlockCopy { from: 0, to: 2 });
        }
        match &*self.lies {
            "block" => self.blocks[0] = 8,
            "long" => self.blocks.resize(3, 0),
            "short" => self.blocks.clear(),
            "move" => moves.push(BlockCopy { from: 0, to: 1_000 }),
            _ => {}
        }
        Ok(&self.blocks)
    }

    fn commit(&mut self, seq: SeqId, keep: usize, moves: &mut Vec<BlockCopy>) {
        self.at_most_panics("commit");
        self.seqs[seq.0 as usize] += keep as u32;
        moves.push(BlockCopy { from: 1, to: if self.lies == "commit" { 99 } else { 2 } });
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        self.at("fork")?;
        self.seqs[child.0 as usize] = self.seqs[parent.0 as usize];
        moves.push(BlockCopy { from: parent.0 * 2, to: child.0 * 2 });
        Ok(())
    }

    fn release(&mut self, seq: SeqId, upto: usize) {
        self.at_most_panics("release");
        self.seqs[seq.0 as usize] = upto as u32;
    }

    fn usage(&self) -> PoolUsage {
        self.at_most_panics("usage");
        let held = self.seqs.iter().sum::<u32>() as usize;
        let used = if self.lies == "usage" { 9 } else { held.min(8) };
        PoolUsage { used, total: 8 }
    }

    fn tick(&mut self, budget_bytes: u64, moves: &mut Vec<BlockCopy>) {
        self.at_most_panics("tick");
        moves.push(BlockCopy { from: budget_bytes as u32, to: 0 });
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.at_most_panics("handover");
        if self.lies == "no handover" { None } else { Some(self) }
    }

    fn prefix_caching(&mut self) -> Option<&mut dyn PrefixCaching> {
        self.at_most_panics("prefix_caching");
        if self.lies == "no prefixes" { None } else { Some(self) }
    }
}

impl PrefixCaching for Subject {
    fn find(&self, keys: &[BlockKey]) -> usize {
        self.at_most_panics("find");
        let lies = usize::from(self.lies == "find");
        keys.iter().take_while(|key| key.0[31] > 0).count() + lies * 100
    }

    fn adopt(&mut self, seq: SeqId, keys: &[BlockKey]) -> usize {
        self.at_most_panics("adopt");
        self.seqs[seq.0 as usize] = 4 * keys.len() as u32;
        keys.len() + usize::from(self.lies == "adopt")
    }

    fn publish(&mut self, seq: SeqId, first: usize, keys: &[BlockKey]) {
        self.at_most_panics("publish");
        let sum: u32 = keys.iter().map(|key| u32::from(key.0[0])).sum();
        self.seqs[seq.0 as usize] = sum * 10 + first as u32;
    }
}

impl Handover for Subject {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        self.at("save")?;
        out.extend(self.seqs.iter().map(|&n| n as u8));
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.at("restore")?;
        self.seqs = bytes.iter().map(|&n| u32::from(n)).collect();
        Ok(())
    }
}

impl DecodingStrategy for Subject {
    fn attach(&mut self, host: &Host) -> Result<()> {
        self.at("attach")?;
        let (vocabulary, ids) = (host.services().vocabulary()?, host.services().encode("ba")?);
        self.blocks = vec![vocabulary.len() as u32];
        self.blocks.extend(ids);
        Ok(())
    }

    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        self.at("open")?;
        let most = request.params.count_or("max_tokens", 3, 1..=9)?;
        self.seqs = vec![group.0, request.seq.0, most as u32];
        self.blocks.extend(request.prompt);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        self.at("plan")?;
        out.push(SeqId(self.seqs[1]), &self.blocks, Want::Sample);
        out.push(SeqId(group.0), &[], Want::Argmax);
        out.list.last_mut().unwrap().is_atomic = true;
        out.push_drafts(SeqId(7), &[1], &[2, 3], Want::Nothing);
        out.push_guessed(SeqId(8), &[4], 5, Want::Sample);
        out.push_aside(SeqId(9), &[5], Want::Top { k: 6 });
        if self.lies == "plan" {
            out.list.last_mut().unwrap().len = 1_000;
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        self.at("observe")?;
        for outcome in results {
            match outcome.token {
                Some(token) => {
                    let token = token + group.0 + outcome.draft.unwrap_or(0);
                    out.emit(outcome.seq, token, outcome.logprob);
                }
                None => out.list.push(Action::Release { seq: outcome.seq, upto: 5 }),
            }
        }
        out.advance(SeqId(1), 2);
        out.say(3, -0.25);
        out.copy(SeqId(4), SeqId(5));
        out.release(SeqId(6), 7);
        let child = out.fork(SeqId(1));
        let grandchild = out.fork(child);
        if self.lies == "observe" {
            out.list.push(Action::Fork { parent: child, child: grandchild });
        }
        out.finish(FinishReason::Refused);
        Ok(())
    }

    fn close(&mut self, _group: GroupId) {
        self.at_most_panics("close");
    }
}

impl Hook for Subject {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        self.at("subscribe")?;
        crate::hooks::subscribe(&self.panics, on);
        Ok(())
    }
}

impl ModelSource for Subject {
    fn list(&self) -> Vec<ModelEntry> {
        self.at_most_panics("list");
        vec![entry("a"), ModelEntry { size_bytes: Some(7), ..entry("b") }]
    }

    fn resolve(&self, name: &str, host: &Host) -> Result<Option<ModelEntry>> {
        self.at("resolve")?;
        host.warn(format_args!("{name} at {}", host.services().monotonic_us()));
        host.services().unix_seconds()?;
        Ok((name != "other").then(|| entry(name)))
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        self.at("fetch")?;
        let (services, path) = (host.services(), folder.join(&entry.name));
        let part = folder.join("part");
        let mut done = 0;
        services.http_get("https://models.test/m", 2, &mut |piece| match piece {
            HttpPiece::Start { status: 206, .. } => Ok(()),
            HttpPiece::Start { status, .. } => Err(Error::outside("status", status)),
            HttpPiece::Bytes(bytes) => {
                self.at("piece")?;
                done += bytes.len() as u64;
                progress(Progress { stage: "downloading", done, total: entry.size_bytes });
                services.append(&part, bytes)
            }
        })?;
        services.rename(&part, &path)?;
        let mut file = services.open(&path)?;
        let (mut head, mut tail) = ([0; 3], Vec::new());
        let outside = |error: std::io::Error| Error::outside("file", error);
        file.read_exact(&mut head).map_err(outside)?;
        file.seek(SeekFrom::End(-4)).map_err(outside)?;
        file.read_to_end(&mut tail).map_err(outside)?;
        let size = services.size_bytes(folder)?;
        let names = services.list(folder)?;
        services.remove(&folder.join("junk"))?;
        let mut ticks = 0;
        let command = Command {
            program: "check".to_owned(),
            args: vec![format!("{head:?} {tail:?} {size:?} {names:?}")],
            env: vec![("A".to_owned(), "b".to_owned())],
            folder: Some(folder.to_owned()),
        };
        let ended = services.run(&command, &mut || {
            self.at_most_panics("tick");
            ticks += 1;
        })?;
        host.info(format_args!("{ticks} ticks, {ended:?}"));
        Ok(path)
    }
}

fn entry(name: &str) -> ModelEntry {
    ModelEntry { name: name.to_owned(), description: "tiny".to_owned(), size_bytes: None }
}

/// Computes `output = input · sizes[0] + first byte of the weight + state + scratch`.
impl Backend for Subject {
    fn domains(&self) -> Vec<DomainDesc> {
        self.at_most_panics("domains");
        let domain = DomainDesc { id: DomainId(3), name: "tiny:0".to_owned(), size_bytes: Some(9) };
        if self.lies == "domains" { Vec::new() } else { vec![domain] }
    }

    fn kernels(&self) -> String {
        self.at_most_panics("kernels");
        "tiny".to_owned()
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        self.at_most_panics("support");
        match node.plan.nodes.iter().position(|x| std::ptr::eq(x, node.node)) {
            Some(0) => Support::Native,
            Some(1) => Support::Expand,
            other => Support::No(format!("{other:?} of {}", node.plan.num_nodes())),
        }
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        self.at("layout")?;
        let id = LayoutId(format!("{}: {lowering:?}", weight.name));
        let row_block = if self.lies == "layout" { 0 } else { 4 };
        let block_bytes = if self.lies == "huge layout" { usize::MAX } else { 64 };
        Ok(Layout { id, row_block, block_bytes, wants: RawForm::Floats })
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        self.at("pack")?;
        let sum = match raw.values {
            RawValues::Floats(x) => x.iter().sum::<f32>(),
            RawValues::Affine { codes, scales, mins } => {
                f32::from(codes[0]) * scales[0] + mins.first().copied().unwrap_or(0.5)
            }
        };
        out[0] = sum as u8;
        out[1] = (raw.rows + raw.desc.cols + layout.row_block) as u8;
        Ok(())
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        self.at("compile")?;
        let scratch = if self.lies == "compile" { usize::MAX } else { 64 };
        Ok(Exe::new(scratch, (plan.clone(), bucket.clone(), memory.clone(), self.clone())))
    }

    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        self.at("run")?;
        let (plan, _, memory, _) = exe.code::<(Plan, Bucket, MemoryMap, Self)>()?;
        assert_eq!((bind.inputs.len(), memory.block_size), (plan.inputs.len(), 4));
        let weight = &bind.weights[0];
        assert_eq!((weight.domain(), weight.device_address()), (DomainId(3), Some(77)));
        let byte = weight.host_bytes().map_or(0, |bytes| bytes[0]);
        bind.state[0] += 1;
        bind.scratch[0] = 9;
        let TensorRef::F32(x) = bind.inputs[0] else { return Err(denied("inputs")) };
        let TensorRef::U32(ids) = bind.inputs[1] else { return Err(denied("ids")) };
        let TensorMut::F32(out) = &mut bind.outputs[0] else { return Err(denied("outputs")) };
        for ((y, x), id) in out.iter_mut().zip(x).zip(ids) {
            *y = x * bind.sizes[0] as f32 + f32::from(byte) + f32::from(bind.state[0]) + *id as f32;
        }
        Ok(if stream.0 == 0 { Fence::Done } else { Fence::Pending(u64::from(stream.0)) })
    }

    /// Doubles the outputs, as a device would write them late.
    fn wait(&self, exe: &Exe, fence: Fence, bind: &mut Bindings<'_>) -> Result<()> {
        self.at("wait")?;
        let (plan, ..) = exe.code::<(Plan, Bucket, MemoryMap, Self)>()?;
        assert_eq!(bind.outputs.len(), plan.outputs.len());
        let TensorMut::F32(out) = &mut bind.outputs[0] else { return Err(denied("outputs")) };
        out.iter_mut().for_each(|y| *y *= 2.0);
        if matches!(fence, Fence::Pending(0 | 5)) { Ok(()) } else { Err(denied("fence")) }
    }
}
