import type { Mutant } from "./Mutant.ts"

export const libp2pMutants: ReadonlyArray<Mutant> = [
  {
    name: "the newest muxer is held",
    file: "src/layers/libp2p/wire/GoAway.ts",
    text: "newest = new WeakRef(muxer)",
    replacement: "newest = { deref: () => muxer } as WeakRef<YamuxMuxer>",
    specs: ["test/live/lifetimes.live.test.ts"]
  }
]
