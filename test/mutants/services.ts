import type { Mutant } from "./Mutant.ts"

export const servicesMutants: ReadonlyArray<Mutant> = [
  {
    name: "a source's address that cannot be read is sighted",
    file: "src/services/Discovery.ts",
    text: "known.has(source) ?",
    replacement: "known.has(source) || source !== \"\" ?",
    specs: ["test/services/Discovery.test.ts"]
  }
]
