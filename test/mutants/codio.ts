import type { Mutant } from "./Mutant.ts"

export const codioMutants: ReadonlyArray<Mutant> = []
