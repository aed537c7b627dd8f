import type { Mutant } from "./Mutant.ts"

export const libp2pMutants: ReadonlyArray<Mutant> = []
