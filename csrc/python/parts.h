// The parts of the binding.
#pragma once

#include <pybind11/pybind11.h>

namespace refavs {

void bind_sources(pybind11::module_& m);
void bind_sound(pybind11::module_& m);
void bind_pictures(pybind11::module_& m);
void bind_masks(pybind11::module_& m);
void bind_outputs(pybind11::module_& m);

}  // namespace refavs
