/**
 * The node that the program runs: on libp2p.
 */
import { Effect, Layer } from "effect"
import * as RelayServer from "../layers/reach/RelayServer.ts"
import { Network } from "../Network.ts"
import { NetworkStartError } from "../schema/NetworkError.ts"
import { programDefaults, type ProgramOptions } from "./options.ts"

export { Network }

/** A node with the options, and a relay server if they ask for it. */
export const libp2pNode = ({ network, relayServer }: ProgramOptions): Layer.Layer<Network, NetworkStartError> => {
  const node = Network.layer({ ...programDefaults, ...network })
  return relayServer
    ? RelayServer.layer().pipe(
      Layer.catch((reason) => Layer.effectDiscard(Effect.fail(new NetworkStartError({ reason })))),
      Layer.provideMerge(node)
    )
    : node
}
