//! Components of languages other than Rust, each through the tools that its own world has.
//!
//! The folder holds `wit/`, as `jackfield plugin new` copies it, and one source file. Nothing here
//! knows more of a language than how its compiler is called.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use jackfield_loader::PluginManifest;

use super::build::Made;
use super::templates;

/// `plugin.c`: clang makes a module, `wasm-tools` or jco makes a component of it.
pub(super) fn c(folder: &Path, manifest: &PluginManifest) -> Result<Made> {
    let (world, target) = (world(folder, &manifest.kind)?, folder.join("target"));
    std::fs::create_dir_all(&target)?;
    let (module, component) = (target.join("plugin.core.wasm"), target.join("plugin.wasm"));
    let mut clang = Command::new("clang");
    clang.args(["--target=wasm32", "-O2", "-ffreestanding", "-nostdlib", "-Wall"]);
    clang.args(["-Wl,--no-entry", "-Wl,--strip-all", "plugin.c", "-o"]).arg(&module);
    run(&mut clang, folder, "clang", "install clang and lld: `apt-get install clang lld`")?;
    let embedded = target.join("plugin.embedded.wasm");
    let mut embed = Command::new("wasm-tools");
    embed.args(["component", "embed", "wit", "--world", world]).arg(&module);
    embed.arg("-o").arg(&embedded);
    if is_there("wasm-tools") {
        run(&mut embed, folder, "wasm-tools", "")?;
        let mut new = Command::new("wasm-tools");
        new.args(["component", "new"]).arg(&embedded).arg("-o").arg(&component);
        run(&mut new, folder, "wasm-tools", "")?;
    } else {
        let mut node = Command::new("node");
        node.args(["--input-type=module", "-e", JCO, "wit", world]).arg(&module).arg(&component);
        let get = "the component is made by `wasm-tools` (`cargo install wasm-tools`) or by jco \
                   (`npm install @bytecodealliance/jco`, in this folder)";
        run(&mut node, folder, "node", get)?;
    }
    made(&component, folder)
}

/// `plugin.py`: componentize-py puts an interpreter around it.
pub(super) fn python(folder: &Path, manifest: &PluginManifest) -> Result<Made> {
    let (world, target) = (world(folder, &manifest.kind)?, folder.join("target"));
    std::fs::create_dir_all(&target)?;
    let component = target.join("plugin.wasm");
    let mut command = Command::new("componentize-py");
    command.args(["-d", "wit", "-w", world, "componentize", "--stub-wasi", "plugin", "-o"]);
    command.arg(&component);
    let get = "get it with `pip install componentize-py`";
    run(&mut command, folder, "componentize-py", get)?;
    made(&component, folder)
}

/// `plugin.js`: componentize-js puts an engine around it.
pub(super) fn javascript(folder: &Path, manifest: &PluginManifest) -> Result<Made> {
    let (world, target) = (world(folder, &manifest.kind)?, folder.join("target"));
    std::fs::create_dir_all(&target)?;
    let component = target.join("plugin.wasm");
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-e", COMPONENTIZE, "wit", world]).arg(&component);
    let get = "get Node 20 or newer, then `npm install @bytecodealliance/componentize-js`, in \
               this folder";
    run(&mut node, folder, "node", get)?;
    made(&component, folder)
}

/// The world of a kind.
fn world<'a>(folder: &Path, kind: &'a str) -> Result<&'a str> {
    if !folder.join("wit").is_dir() {
        bail!(
            "{}: expected the folder wit: copy plugin-api/wit/v0.0, or start with \
             `jackfield plugin new`",
            folder.display()
        );
    }
    Ok(match kind {
        "logits-processor" => "logits-processor-plugin",
        "curriculum" => "curriculum-plugin",
        "memory" => "memory-plugin",
        "output-parser" => "output-parser-plugin",
        "reward" => "reward-plugin",
        "decoding-strategy" => "decoding-strategy-plugin",
        "quantizer" => "quantizer-plugin",
        "scheduler" => "scheduler-plugin",
        "mixer" => "mixer-plugin",
        "model-source" => "model-source-plugin",
        "rotary-embedding" => "rotary-embedding-plugin",
        "hook" => "hook-plugin",
        "norm" | "residual" | "feed-forward" | "moe-router" | "encoder" | "objective"
        | "optimizer" | "lr-schedule" | "adapter" => "traced-plugin",
        _ => bail!("{kind}: {}", templates::no_wasm(kind)),
    })
}

fn run(command: &mut Command, folder: &Path, what: &str, get: &str) -> Result<()> {
    let output = command.current_dir(folder).output();
    let output = output.with_context(|| format!("{what}: cannot be run: {get}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{what}: failed in {}: {}\n{get}", folder.display(), said.trim_end())
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn made(component: &Path, folder: &Path) -> Result<Made> {
    let bytes = std::fs::read(component).with_context(|| component.display().to_string())?;
    Ok(Made { bytes, target: folder.join("target") })
}

/// Arguments: folder of the WIT, world, module, component.
const JCO: &str = r#"
import { readFile, writeFile } from "node:fs/promises";
import { componentEmbed, componentNew } from "@bytecodealliance/jco";
const [wit, world, module, component] = process.argv.slice(1);
const { readdirSync, readFileSync } = await import("node:fs");
const files = readdirSync(wit).filter((name) => name.endsWith(".wit")).sort();
const texts = files.map((name) => readFileSync(`${wit}/${name}`, "utf8"));
const [first, ...rest] = texts.map((text) => text.replace(/^package [^;]*;/m, ""));
const witSource = `package jackfield:plugin@0.0.0;\n${[first, ...rest].join("\n")}`;
const binary = await readFile(module);
const embedded = await componentEmbed({ binary, witSource, world });
await writeFile(component, await componentNew(embedded));
"#;

/// Arguments: folder of the WIT, world, component.
const COMPONENTIZE: &str = r#"
import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
const [witPath, worldName, out] = process.argv.slice(1);
const features = ["random", "stdio", "clocks", "http", "fetch-event"];
const { component } = await componentize({
  sourcePath: "plugin.js", witPath, worldName, disableFeatures: features,
});
await writeFile(out, component);
"#;
