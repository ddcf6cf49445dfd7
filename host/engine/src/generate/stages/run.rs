//! One stage after the other.

use plugin_api::kinds::backend::{Bindings, Fence, StatePager, StreamId};
use plugin_api::plan::{CALL_AXES_MAX, CALL_VALUES_MAX};
use plugin_api::{Backend, DType, Result, Shaped, ShapedMut, TensorMut, TensorRef};

use super::{Call, Extent, Place, Stretch, VALUES_MAX, Value};
use crate::generate::batch::SIZES_MAX;

impl Stretch {
    /// Runs on `backend` with the state, the scratch memory, and what brings in states.
    pub(super) fn run(
        &self,
        backend: &dyn Backend,
        sizes: &[usize],
        inputs: &[TensorRef<'_>],
        (state, scratch, pager): (&mut [u8], &mut [u8], Option<&mut dyn StatePager>),
        cells: &mut [&mut [u8]],
    ) -> Result<()> {
        let mut own = [0; SIZES_MAX];
        for (own, &place) in own.iter_mut().zip(&self.sizes) {
            *own = sizes[place];
        }
        with_outputs(&self.outputs, cells, |rooms, cells| {
            let mut read = [TensorRef::U32(&[]); VALUES_MAX];
            for (place, value) in read.iter_mut().zip(&self.inputs) {
                *place = value.read(sizes, inputs, cells);
            }
            let mut written: [TensorMut<'_>; VALUES_MAX] =
                std::array::from_fn(|_| TensorMut::U32(&mut []));
            for ((place, value), room) in written.iter_mut().zip(&self.outputs).zip(rooms) {
                *place = value.write(sizes, room);
            }
            let mut bindings = Bindings {
                sizes: &own[..self.sizes.len()],
                inputs: &read[..self.inputs.len()],
                weights: &self.weights,
                state,
                scratch,
                outputs: &mut written[..self.outputs.len()],
            };
            let fence = match pager {
                Some(pager) => {
                    let mut pager = Renumbered { pager, states: &self.states };
                    backend.run_paged(&self.exe, StreamId(0), &mut bindings, &mut pager)?
                }
                None => backend.run(&self.exe, StreamId(0), &mut bindings)?,
            };
            match fence {
                Fence::Done => Ok(()),
                fence @ Fence::Pending(_) => backend.wait(&self.exe, fence, &mut bindings),
            }
        })
    }
}

impl Call {
    /// Lets the plugin compute.
    pub(super) fn run(
        &self,
        sizes: &[usize],
        inputs: &[TensorRef<'_>],
        cells: &mut [&mut [u8]],
    ) -> Result<()> {
        let (mut ins, mut outs) =
            ([[0; CALL_AXES_MAX]; CALL_VALUES_MAX], [[0; CALL_AXES_MAX]; CALL_VALUES_MAX]);
        with_outputs(&self.outputs, cells, |rooms, cells| {
            let mut read = [Shaped { dims: &[], values: TensorRef::U32(&[]) }; CALL_VALUES_MAX];
            for ((place, value), dims) in read.iter_mut().zip(&self.inputs).zip(&mut ins) {
                let values = value.read(sizes, inputs, cells);
                *place = Shaped { dims: value.extents(sizes, dims), values };
            }
            let mut written: [ShapedMut<'_>; CALL_VALUES_MAX] =
                std::array::from_fn(|_| ShapedMut { dims: &[], values: TensorMut::U32(&mut []) });
            let places = written.iter_mut().zip(&self.outputs).zip(rooms);
            for (((place, value), room), dims) in places.zip(&mut outs) {
                let values = value.write(sizes, room);
                *place = ShapedMut { dims: value.extents(sizes, dims), values };
            }
            let (read, written) = (&read[..self.inputs.len()], &mut written[..self.outputs.len()]);
            self.part.instance.call(&self.name, read, written)
        })
    }
}

impl Value {
    fn len(&self, sizes: &[usize]) -> usize {
        self.dims.iter().map(|extent| extent.size(sizes)).product()
    }

    /// Its extents, in the front of `room`.
    fn extents<'a>(&self, sizes: &[usize], room: &'a mut [usize]) -> &'a [usize] {
        for (place, extent) in room.iter_mut().zip(&self.dims) {
            *place = extent.size(sizes);
        }
        &room[..self.dims.len()]
    }

    fn read<'a>(
        &self,
        sizes: &[usize],
        inputs: &[TensorRef<'a>],
        cells: &'a [&mut [u8]],
    ) -> TensorRef<'a> {
        let bytes = match self.place {
            Place::Input(place) => return inputs[place],
            Place::Cell(cell) => &cells[cell][..self.len(sizes) * size_of::<f32>()],
        };
        match self.dtype {
            DType::U32 => TensorRef::U32(bytemuck::cast_slice(bytes)),
            _ => TensorRef::F32(bytemuck::cast_slice(bytes)),
        }
    }

    fn write<'a>(&self, sizes: &[usize], room: &'a mut [u8]) -> TensorMut<'a> {
        let bytes = &mut room[..self.len(sizes) * size_of::<f32>()];
        match self.dtype {
            DType::U32 => TensorMut::U32(bytemuck::cast_slice_mut(bytes)),
            _ => TensorMut::F32(bytemuck::cast_slice_mut(bytes)),
        }
    }
}

impl Extent {
    fn size(self, sizes: &[usize]) -> usize {
        match self {
            Self::Fixed(n) => n,
            Self::Symbol(place) => sizes[place],
        }
    }
}

/// Cells of nothing.
pub(super) fn no_cells<'a, const N: usize>() -> [&'a mut [u8]; N] {
    std::array::from_fn(|_| &mut [][..])
}

/// Calls `act` with the cells that `outputs` are written to and all the others, and puts them back.
fn with_outputs<'a, R>(
    outputs: &[Value],
    cells: &mut [&'a mut [u8]],
    act: impl FnOnce(&mut [&'a mut [u8]], &[&'a mut [u8]]) -> R,
) -> R {
    let mut rooms = no_cells::<VALUES_MAX>();
    for (room, value) in rooms.iter_mut().zip(outputs) {
        if let Place::Cell(cell) = value.place {
            std::mem::swap(room, &mut cells[cell]);
        }
    }
    let result = act(&mut rooms[..outputs.len()], cells);
    for (room, value) in rooms.iter_mut().zip(outputs) {
        if let Place::Cell(cell) = value.place {
            std::mem::swap(room, &mut cells[cell]);
        }
    }
    result
}

/// A pager for a stretch: it counts its own states only.
struct Renumbered<'a> {
    pager: &'a mut dyn StatePager,
    states: &'a [usize],
}

impl StatePager for Renumbered<'_> {
    fn enter(&mut self, state: usize, arena: &mut [u8]) -> Result<()> {
        self.pager.enter(self.states[state], arena)
    }
}
