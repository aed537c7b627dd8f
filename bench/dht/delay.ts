/**
 * A longer way to the others: whatever a socket of this process receives is handed on later, in order, handshakes
 * included. That adds one delay to each round trip, and needs neither root nor a proxy whose addresses nobody
 * announces.
 */
import { Socket } from "node:net"

export const install = (millis: number): void => {
  const push = Socket.prototype.push
  Socket.prototype.push = function(this: Socket, chunk: unknown, encoding?: BufferEncoding) {
    setTimeout(() => push.call(this, chunk, encoding), millis)
    // What is held back is a few messages: nobody has to wait for the reader.
    return true
  }
}
