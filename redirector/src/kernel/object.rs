//! The compiled program, embedded, and how it gets into the kernel.
//!
//! aya's own loader gives every program maps of its own; ours are shared in part, so the object is taken apart by aya's
//! parser and put together here.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::LazyLock,
};

use aya_obj::{EbpfSectionKind, Map, Object, generated::bpf_insn};

use super::InstanceError;
use crate::sys::{
    SyscallError,
    bpf::{self, Instruction, MapShape},
    named,
};

/// Aligned as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirector-ebpf"));

/// The function's name in the object, and the program's in the kernel.
pub const PROGRAM: &str = "redirector";

static PARSED: LazyLock<Result<Object, String>> =
    LazyLock::new(|| Object::parse(OBJECT).map_err(|error| error.to_string()));

fn parsed() -> Result<&'static Object, InstanceError> {
    PARSED.as_ref().map_err(|error| InstanceError::Object(error.clone()))
}

fn no_map(name: &str) -> InstanceError {
    InstanceError::Object(format!("it has no map `{name}`"))
}

/// Makes a map of the object that is no map of maps, with another number of elements where one is given.
pub(super) fn make(name: &str, max_entries: Option<u32>) -> Result<OwnedFd, InstanceError> {
    let map = parsed()?.maps.get(name).ok_or_else(|| no_map(name))?;
    Ok(create(map, name, max_entries)?)
}

fn create(map: &Map, name: &str, max_entries: Option<u32>) -> Result<OwnedFd, SyscallError> {
    let shape = MapShape {
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: max_entries.unwrap_or(map.max_entries()),
        flags: map.map_flags(),
        inner: None,
        name,
    };
    named("bpf BPF_MAP_CREATE", bpf::map(&shape))
}

/// Loads the program under a name, with these constants and these maps.
pub(super) fn load(
    name: &str,
    constants: &[(&str, u32)],
    maps: &[(&str, BorrowedFd<'_>)],
) -> Result<OwnedFd, InstanceError> {
    let error = |error: &dyn std::error::Error| InstanceError::Object(error.to_string());
    let mut object = parsed()?.clone();
    let bytes: Vec<_> = constants.iter().map(|(name, value)| (*name, value.to_ne_bytes())).collect();
    let data = bytes.iter().map(|(name, bytes)| (*name, (&bytes[..], true))).collect();
    object.patch_map_data(data).map_err(|source| error(&source))?;
    // Those of constants have no name of ours, and are this program's alone.
    let mut own = Vec::new();
    for (name, map) in object.maps.iter().filter(|(_, map)| !map.data().is_empty()) {
        own.push((name.clone(), with_data(map)?));
    }
    let given: HashMap<&str, BorrowedFd<'_>> =
        maps.iter().copied().chain(own.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))).collect();
    let definitions = object.maps.clone();
    let found = definitions.iter().map(|(name, map)| {
        let fd = given.get(name.as_str()).ok_or_else(|| no_map(name))?;
        Ok((name.as_str(), fd.as_raw_fd(), map))
    });
    let found = found.collect::<Result<Vec<_>, InstanceError>>()?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(found.into_iter(), &sections).map_err(|source| error(&source))?;
    object.relocate_calls(&sections).map_err(|source| error(&source))?;
    let program = object.programs.get(PROGRAM);
    let function = program.and_then(|program| object.functions.get(&program.function_key()));
    let function = function.ok_or_else(|| InstanceError::Object(format!("it has no program `{PROGRAM}`")))?;
    let instructions: Vec<_> = function.instructions.iter().map(instruction).collect();
    bpf::sk_lookup_program(&instructions, name)
        .map_err(|source| InstanceError::Program { log: bpf::verifier_log(&instructions), source })
}

/// A map that holds data of the object. What is read only is so for everybody.
fn with_data(map: &Map) -> Result<OwnedFd, SyscallError> {
    let fd = create(map, "constants", None)?;
    named("bpf BPF_MAP_UPDATE_ELEM constants", bpf::update_bytes(fd.as_fd(), map.data()))?;
    if map.section_kind() == EbpfSectionKind::Rodata {
        named("bpf BPF_MAP_FREEZE", bpf::freeze(fd.as_fd()))?;
    }
    Ok(fd)
}

fn instruction(one: &bpf_insn) -> Instruction {
    let registers = u8::try_from(one._bitfield_1.get(0, 8)).expect("8 bits");
    Instruction::from_parts(one.code, registers, one.off, one.imm)
}
