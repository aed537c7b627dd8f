/**
 * A longer round trip to all peers: bytes that a socket of this process receives are handed on later, in order,
 * handshakes included. Needs neither root nor a proxy, whose address would have to be announced.
 */
import { Socket } from "node:net"

export const install = (millis: number): void => {
  const push = Socket.prototype.push
  Socket.prototype.push = function(this: Socket, chunk: unknown, encoding?: BufferEncoding) {
    setTimeout(() => push.call(this, chunk, encoding), millis)
    // Only a few messages are held back, so there is no backpressure.
    return true
  }
}
