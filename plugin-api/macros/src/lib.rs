//! `export_plugin!`: makes a plugin known to whoever links it.
//!
//! The macro reads the `plugin.toml` beside the plugin's `Cargo.toml`, so that kind and name stand
//! in one place, and embeds it in the artefact: for the builtin lane as a `Builtin`, for the native
//! lane as a section and an entry symbol, for the WASM lane as a custom section and exports. It knows no kind by name: `logits-processor`
//! simply means the trait `plugin_api::LogitsProcessor`.

use proc_macro::TokenStream;
use std::path::PathBuf;

/// Registers `T`, a type that implements `Capability` and the trait of the manifest's `kind`.
///
/// ```ignore
/// export_plugin!(MinP);
/// ```
///
/// # Errors
///
/// A compile error that names `plugin.toml` when the file is missing, states no `kind` or states
/// one that is not written in kebab-case.
#[proc_macro]
pub fn export_plugin(item: TokenStream) -> TokenStream {
    match expand(&item.to_string()) {
        Ok(code) => code,
        Err(message) => format!("compile_error!({message:?});"),
    }
    .parse()
    .unwrap_or_default()
}

fn expand(plugin_type: &str) -> Result<String, String> {
    let folder = std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let crate_name = std::env::var("CARGO_CRATE_NAME").map_err(|e| e.to_string())?;
    let path = PathBuf::from(folder).join("plugin.toml");
    let manifest = std::fs::read_to_string(&path)
        .map_err(|e| format!("{}: expected the plugin's manifest: {e}", path.display()))?;
    let kind = value_of(&manifest, "kind")
        .ok_or_else(|| format!("{}: expected a line `kind = \"…\"`", path.display()))?;
    let kind_trait = trait_name(kind)
        .ok_or_else(|| format!("{}: kind: expected kebab-case, found `{kind}`", path.display()))?;
    Ok(format!(
        r#"
        const _: () = {{
            fn register(registrar: &mut ::plugin_api::Registrar) {{
                registrar.provide::<dyn ::plugin_api::{kind_trait}, {plugin_type}>();
            }}
            ::plugin_api::inventory::submit! {{
                ::plugin_api::Builtin {{
                    manifest: include_str!({manifest_path:?}),
                    register,
                }}
            }}
            #[cfg(not(target_family = "wasm"))]
            #[allow(unsafe_code, reason = "a symbol for the host to find, and what it calls")]
            const _: () = {{
                // A section: readable without running anything.
                #[unsafe(link_section = ".jackfield.manifest")]
                static MANIFEST: [u8; include_bytes!({manifest_path:?}).len()] =
                    *include_bytes!({manifest_path:?});

                #[unsafe(export_name = {symbol:?})]
                static ENTRY: ::plugin_api::native::Entry =
                    ::plugin_api::native::entry_of::<dyn ::plugin_api::{kind_trait}>(&MANIFEST, open);

                unsafe extern "C" fn open(
                    request: *const ::plugin_api::native::abi::Open<'_>,
                    opened: *mut ::plugin_api::native::abi::Opened,
                    out: *const ::plugin_api::native::abi::Out,
                ) -> u32 {{
                    // SAFETY: the host's pointers are valid for the call.
                    unsafe {{
                        ::plugin_api::native::open_of::<dyn ::plugin_api::{kind_trait}>(
                            register, request, opened, out,
                        )
                    }}
                }}
            }};
            #[cfg(target_family = "wasm")]
            #[allow(unsafe_code, reason = "exports are made by `wit-bindgen`")]
            const _: () = {{
                ::plugin_api::export_wasm!({kind:?}, register);
                // A custom section: readable without running anything.
                #[used]
                #[unsafe(link_section = "jackfield.manifest")]
                static MANIFEST: [u8; include_bytes!({manifest_path:?}).len()] =
                    *include_bytes!({manifest_path:?});
            }};
        }};
        "#,
        manifest_path = path.display().to_string(),
        symbol = format!("plugin_entry_{crate_name}"),
    ))
}

/// The string that `key = "…"` gives at the top level of a manifest.
fn value_of<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    manifest.lines().take_while(|line| !line.trim_start().starts_with('[')).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

/// `logits-processor` becomes `LogitsProcessor`.
fn trait_name(kind: &str) -> Option<String> {
    let mut name = String::new();
    for word in kind.split('-') {
        let mut letters = word.chars();
        let first = letters.next().filter(char::is_ascii_lowercase)?;
        name.push(first.to_ascii_uppercase());
        name.extend(letters);
    }
    name.chars().all(|c| c.is_ascii_alphanumeric()).then_some(name)
}
