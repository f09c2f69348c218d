// AssemblyScript's exports are named by identifiers; those of the contract have names that are none. This runs inside
// the compiler and gives them those names.

const SCALING = "regatta:policy/scaling@0.1.1";

export default class {
  afterCompile(module) {
    for (const name of ["describe", "validate", "decide"]) {
      module.removeExport(name);
      module.addFunctionExport(`policy/${name}`, `${SCALING}#${name}`);
    }
  }
}
