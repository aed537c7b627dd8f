import type { Mutant } from "./Mutant.ts"

export const schemaMutants: ReadonlyArray<Mutant> = []
