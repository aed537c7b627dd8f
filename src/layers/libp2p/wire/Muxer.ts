/**
 * How the muxers of a host are changed from outside, each as it is made for a connection.
 */
import type { MessageStream, StreamMuxer, StreamMuxerFactory } from "@libp2p/interface"

/** What makes the muxers of a host from its components, as libp2p is given it. */
export type Muxers<C> = (components: C) => StreamMuxerFactory

/**
 * The same muxers, each changed before anybody has it. `M` names what the change takes of yamux that the muxer interface lacks.
 */
export const eachMuxer =
  <M>(change: (muxer: StreamMuxer & M, connection: MessageStream) => void) =>
  <C>(factory: Muxers<C>): Muxers<C> =>
  (components) => {
    const muxers = factory(components)
    const create = muxers.createStreamMuxer.bind(muxers)
    muxers.createStreamMuxer = (connection) => {
      const muxer = create(connection) as StreamMuxer & M
      change(muxer, connection)
      return muxer
    }
    return muxers
  }
