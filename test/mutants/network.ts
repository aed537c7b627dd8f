import type { Mutant } from "./Mutant.ts"

export const networkMutants: ReadonlyArray<Mutant> = []
