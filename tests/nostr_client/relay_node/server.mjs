// A relay of npm's @nostr-relay behind a websocket, on 127.0.0.1: server.mjs PORT.
// What is done with an event is theirs; ours is the socket and a memory for what is not ephemeral.
// It does not look at the tags of a filter, so that all its clients and the service get each other's events.
import common from '@nostr-relay/common';
import core from '@nostr-relay/core';
import validation from '@nostr-relay/validator';
import { WebSocketServer } from 'ws';

const MOST = 1000;

class Memory extends common.EventRepository {
  events = new Map();

  isSearchSupported() {
    return false;
  }

  upsert(event) {
    const isDuplicate = this.events.has(event.id);
    this.events.set(event.id, event);
    if (this.events.size > MOST) this.events.delete(this.events.keys().next().value);
    return { isDuplicate };
  }

  find(filter) {
    return [...this.events.values()].filter((event) => common.EventUtils.isMatchingFilter(event, filter));
  }

  async destroy() {}
}

// It remembers the ids it has seen for ten minutes and does not pass such an event on again. Off, so that replays
// come through to the service.
const relay = new core.NostrRelay(new Memory(), { eventHandlingResultCacheTtl: 0 });
const validator = new validation.Validator();
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]), maxPayload: 256 * 1024 });

server.on('connection', (socket, request) => {
  relay.handleConnection(socket, request.socket.remoteAddress);
  socket.on('message', async (data) => {
    try {
      await relay.handleMessage(socket, await validator.validateIncomingMessage(data));
    } catch (error) {
      socket.send(JSON.stringify(['NOTICE', String(error.message)]));
    }
  });
  socket.on('close', () => relay.handleDisconnect(socket));
  socket.on('error', () => socket.terminate());
});
server.on('listening', () => console.log(`relay on ws://127.0.0.1:${server.address().port}`));
