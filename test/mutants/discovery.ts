import type { Mutant } from "./Mutant.ts"

export const discoveryMutants: ReadonlyArray<Mutant> = []
