//! Guards the tree: layers, sizes, names, symmetry, unsafe rooms, dependencies, documents.
//!
//! `BLESS=1 cargo tidy` writes the list of builtin plugins, which is generated.

mod builtins;
mod dependencies;
mod digest;
mod documents;
mod names;
mod sizes;
mod symmetry;
mod tree;
mod unsafe_rooms;

use tree::Tree;

/// Fails with everything that is wrong, a line each.
fn report(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

#[test]
fn imports_point_down_only() {
    report(&dependencies::layers(&Tree::read()));
}

#[test]
fn every_dependency_is_on_the_list_with_a_reason() {
    report(&dependencies::allowed(&Tree::read()));
}

#[test]
fn files_stay_small() {
    report(&sizes::check(&Tree::read()));
}

#[test]
fn files_say_what_they_are_for() {
    report(&documents::headers(&Tree::read()));
}

#[test]
fn names_are_the_fields_own() {
    report(&names::check(&Tree::read()));
}

#[test]
fn a_kind_has_the_same_name_in_every_room() {
    report(&symmetry::check(&Tree::read()));
}

#[test]
fn what_decides_bytes_is_in_the_digest() {
    report(&digest::check(&Tree::read()));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    report(&unsafe_rooms::check(&Tree::read()));
}

#[test]
fn builtins_are_the_plugins_there_are() {
    report(&builtins::check(&Tree::read()));
}

#[test]
fn the_readme_shows_the_tree_and_links_lead_somewhere() {
    report(&documents::readme_tree(&Tree::read()));
    report(&documents::links(&Tree::read()));
}

#[test]
fn the_project_speaks_of_itself_only() {
    report(&documents::banned_phrases(&Tree::read()));
}
