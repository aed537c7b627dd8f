import type { Mutant } from "./Mutant.ts"

export const servicesMutants: ReadonlyArray<Mutant> = []
