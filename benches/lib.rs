//! Criterion benches of the model and of the bytecode in the vm; see the files beside this one.
