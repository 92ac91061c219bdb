// Loaded before NNI's manager: it listens on this machine only, and does not outlive a benchmark that was interrupted.
'use strict';
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port) {
    return listen.call(this, { port, host: '127.0.0.1' });
};
const parent = process.ppid;
setInterval(() => {
    if (process.ppid !== parent) process.kill(-process.pid, 'SIGKILL');
}, 1000);
