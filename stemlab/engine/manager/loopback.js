// Loaded by Node before NNI's manager: it makes the manager listen on this machine only and answer those only who know
// its secret path, and mends what would pair trials with the wrong parameters, lose metrics, or outlive the study.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const Module = require('module');
const net = require('net');

const settings = JSON.parse(process.env.STEMLAB_MANAGER);
// The trials inherit this environment: the secrets, and this file, are not for them.
delete process.env.STEMLAB_MANAGER;
delete process.env.NODE_OPTIONS;
// Not in the command line that starts Node: every user of the machine can read that.
process.argv.push('--url-prefix', settings.prefix);

const applied = ['listen', 'requests'];

function apply(name) {
    applied.push(name);
    fs.writeFileSync(settings.applied, JSON.stringify(applied));
}

// When the study's process is gone, whatever ended it, its end of this pipe is closed.
function leave() {
    fs.rmSync(settings.folder, { recursive: true, force: true });
    process.kill(-process.pid, 'SIGKILL');
}
process.stdin.on('end', leave).on('error', leave).resume();

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
    if (typeof port !== 'number') {
        throw new Error('stemlab: NNI\'s manager may listen on a port of this machine only');
    }
    const callback = rest.find(value => typeof value === 'function');
    return listen.call(this, { port, host: '127.0.0.1' }, callback);
};

function same(given, expected) {
    const hash = text => crypto.createHash('sha256').update(String(given === undefined ? '' : text)).digest();
    return given !== undefined && crypto.timingSafeEqual(hash(given), hash(expected));
}

function isAllowed(request) {
    const { host, origin } = request.headers;
    // A page of a foreign site sends its own Origin; a foreign name that was made to point here, its own Host.
    if (!settings.hosts.includes(host)) return false;
    if (origin !== undefined && !settings.hosts.some(name => origin === `http://${name}`)) return false;
    let parts;
    try {
        parts = decodeURIComponent(request.url.split(/[?#]/)[0]).split('/').slice(1);
    } catch {
        return false;
    }
    if (!same(parts[0], settings.prefix)) return false;
    // NNI would read any file by such a path, or act as a proxy to another site.
    if (parts.some(part => part === '..' || part.includes('\\')) || parts[1] === 'netron') return false;
    const isTrial = request.method === 'PUT' && parts[1] === 'env';
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    return isRead || isTrial || same(request.headers['x-stemlab'], settings.token);
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, second, ...rest) {
    if (['request', 'checkContinue', 'checkExpectation'].includes(event) && !isAllowed(request)) {
        second.writeHead(403, { Connection: 'close' }).end();
        return true;
    }
    if (['upgrade', 'connect'].includes(event) && !isAllowed(request)) {
        second.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n');
        return true;
    }
    return emit.call(this, event, request, second, ...rest);
};

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

function mendManager(prototype) {
    // It looks for ended and for waiting trials at this pace only.
    const initTrainingService = prototype.initTrainingService;
    prototype.initTrainingService = async function (config) {
        const service = await initTrainingService.call(this, config);
        this.pollInterval = Math.min(this.pollInterval, settings.poll);
        return service;
    };
    // A trial may report before its start is on record, and its metric would be dropped.
    const onTrialJobMetrics = prototype.onTrialJobMetrics;
    prototype.onTrialJobMetrics = async function (metric) {
        for (let i = 0; i < 40 && !this.trialJobs.has(metric.id); i++) await pause(50);
        return onTrialJobMetrics.call(this, metric);
    };
    apply('manager');
}

function mendPairing(prototype) {
    // NNI gives its parameters to whichever trial asks first; a trial that was named beforehand gets its own.
    const submitTrialJob = prototype.submitTrialJob;
    prototype.submitTrialJob = async function (form) {
        await this.startDeferred.promise;
        const envId = this.schedule();
        if (envId !== null && form.id === undefined) {
            form.id = crypto.randomBytes(8).toString('hex');
            form.envId = envId;
            this.allocatedParameters.set(form.id, form.hyperParameters.value);
        }
        return submitTrialJob.call(this, form);
    };
    apply('pairing');
}

function mendTuner(server) {
    // It would give up on a tuner that takes more than ten seconds to start; the study's process waits as it sees fit.
    server.init = () => server.connect.promise;
    apply('tuner');
}

const load = Module._load;
Module._load = function (...request) {
    const loaded = load.apply(this, request);
    for (const [name, mend] of [
        ['NNIManager', value => mendManager(value.prototype)],
        ['V3asV1', value => mendPairing(value.prototype)],
        ['getTunerServer', value => mendTuner(value())],
    ]) {
        // A module that is being loaded has its names before their values.
        if (loaded && typeof loaded[name] === 'function' && !mended.has(name)) {
            mended.add(name);
            mend(loaded[name]);
        }
    }
    return loaded;
};
const mended = new Set();
