
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_relay.h>


/* that a relay remembers; RFC 4787 asks for no number */
#define NGX_STREAM_TUN_RELAY_PEERS  4096


typedef enum {
    NGX_STREAM_TUN_RELAY_NPEERS = 0,
    NGX_STREAM_TUN_RELAY_SENT,
    NGX_STREAM_TUN_RELAY_RECEIVED,
    NGX_STREAM_TUN_RELAY_FILTERED
} ngx_stream_tun_relay_variable_e;


static char *ngx_stream_tun_relay_param(ngx_conf_t *cf,
    ngx_stream_tun_srv_conf_t *tscf, ngx_str_t *value);
static void ngx_stream_tun_relay_handler(ngx_stream_session_t *s);
static ngx_int_t ngx_stream_tun_relay_start(ngx_stream_tun_relay_t *relay);
static void ngx_stream_tun_relay_first(ngx_stream_tun_relay_t *relay);
static void ngx_stream_tun_relay_client_handler(ngx_event_t *rev);
static void ngx_stream_tun_relay_to_upstream(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);

static ngx_stream_tun_relay_peer_t *ngx_stream_tun_relay_remember(
    ngx_stream_tun_relay_t *relay, ngx_tun_datagram_t *datagram);
static ngx_stream_tun_relay_peer_t *ngx_stream_tun_relay_add(
    ngx_stream_tun_relay_t *relay, ngx_stream_tun_relay_peer_t *key);
static ngx_stream_tun_relay_peer_t *ngx_stream_tun_relay_find(
    ngx_stream_tun_relay_t *relay, ngx_stream_tun_relay_peer_t *key);
static void ngx_stream_tun_relay_key(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram, ngx_stream_tun_relay_peer_t *key);
static void ngx_stream_tun_relay_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_int_t ngx_stream_tun_relay_cmp(ngx_rbtree_node_t *one,
    ngx_rbtree_node_t *two);
static ngx_stream_tun_relay_peer_t *ngx_stream_tun_relay_new_peer(
    ngx_stream_tun_relay_t *relay);

static ngx_int_t ngx_stream_tun_relay_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data);


static ngx_stream_variable_t  ngx_stream_tun_relay_vars[] = {

    { ngx_string("tun_relay_peers"), NULL, ngx_stream_tun_relay_variable,
      NGX_STREAM_TUN_RELAY_NPEERS, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_relay_sent"), NULL, ngx_stream_tun_relay_variable,
      NGX_STREAM_TUN_RELAY_SENT, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_relay_received"), NULL, ngx_stream_tun_relay_variable,
      NGX_STREAM_TUN_RELAY_RECEIVED, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_relay_filtered"), NULL, ngx_stream_tun_relay_variable,
      NGX_STREAM_TUN_RELAY_FILTERED, NGX_STREAM_VAR_NOCACHEABLE, 0 },

      ngx_stream_null_variable
};


char *
ngx_stream_tun_udp_relay(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_srv_conf_t *tscf = conf;

    char                        *rv;
    ngx_str_t                   *value;
    ngx_uint_t                   i;
    ngx_stream_core_srv_conf_t  *cscf;

    if (tscf->relay) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_stream_tun_relay_param(cf, tscf, &value[i]);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "on") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", it must be \"on\" or "
                           "\"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    tscf->relay = 1;

    cscf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_core_module);
    cscf->handler = ngx_stream_tun_relay_handler;

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_relay_param(ngx_conf_t *cf, ngx_stream_tun_srv_conf_t *tscf,
    ngx_str_t *value)
{
    ngx_url_t  u;

    if (ngx_strcmp(value->data, "filtering=independent") == 0) {
        tscf->filtering = NGX_STREAM_TUN_RELAY_INDEPENDENT;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "filtering=address") == 0) {
        tscf->filtering = NGX_STREAM_TUN_RELAY_ADDRESS;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "filtering=port") == 0) {
        tscf->filtering = NGX_STREAM_TUN_RELAY_PORT;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "proxy=", 6) == 0
        && value->len > 6
        && tscf->proxy == NULL)
    {
        ngx_memzero(&u, sizeof(ngx_url_t));

        u.host.data = value->data + 6;
        u.host.len = value->len - 6;
        u.url = u.host;
        u.no_resolve = 1;

        tscf->proxy = ngx_stream_upstream_add(cf, &u, 0);

        return (tscf->proxy == NULL) ? NGX_CONF_ERROR : NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);

    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_stream_tun_add_relay_variables(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_tun_relay_vars; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static void
ngx_stream_tun_relay_handler(ngx_stream_session_t *s)
{
    ngx_connection_t           *c;
    ngx_stream_tun_ctx_t       *ctx;
    ngx_stream_tun_relay_t     *relay;
    ngx_stream_tun_srv_conf_t  *tscf;

    c = s->connection;

    if (!ngx_stream_tun_session(s) || c->type != SOCK_DGRAM) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "\"tun_udp_relay\" takes datagrams of a tun only");
        ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
        return;
    }

    c->log->action = "relaying datagrams";

    tscf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_module);

    ctx = ngx_stream_tun_get_ctx(s);
    relay = ngx_pcalloc(c->pool, sizeof(ngx_stream_tun_relay_t));

    if (ctx == NULL || relay == NULL) {
        ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
        return;
    }

    relay->session = s;
    relay->filtering = tscf->filtering;

    ngx_queue_init(&relay->peers);
    ngx_queue_init(&relay->names);
    ngx_rbtree_init(&relay->rbtree, &relay->sentinel,
                    ngx_stream_tun_relay_insert);

    ctx->relay = relay;

    if (ngx_stream_tun_relay_start(relay) != NGX_OK) {
        ngx_stream_tun_relay_finalize(relay, NGX_STREAM_BAD_GATEWAY);
        return;
    }

    c->read->handler = ngx_stream_tun_relay_client_handler;
    c->write->handler = ngx_stream_tun_relay_client_handler;

    ngx_stream_tun_relay_first(relay);
}


static ngx_int_t
ngx_stream_tun_relay_start(ngx_stream_tun_relay_t *relay)
{
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = ngx_stream_get_module_srv_conf(relay->session,
                                          ngx_stream_tun_module);

    if (tscf->proxy != NULL) {
        return ngx_stream_tun_associate(relay, tscf->proxy);
    }

    return ngx_stream_tun_relay_open(relay,
                           relay->session->connection->sockaddr->sa_family);
}


static void
ngx_stream_tun_relay_first(ngx_stream_tun_relay_t *relay)
{
    struct sockaddr      *sa;
    ngx_connection_t     *c;
    ngx_tun_datagram_t    datagram;

    c = relay->session->connection;
    sa = c->local_sockaddr;

    ngx_memzero(&datagram, sizeof(ngx_tun_datagram_t));

    datagram.data = c->buffer->pos;
    datagram.len = c->buffer->last - c->buffer->pos;
    datagram.port = ngx_inet_get_port(sa);

#if (NGX_HAVE_INET6)
    if (sa->sa_family == AF_INET6) {
        ngx_memcpy(datagram.addr, &((struct sockaddr_in6 *) sa)->sin6_addr,
                   16);

    } else
#endif
    {
        ngx_memcpy(datagram.addr, &((struct sockaddr_in *) sa)->sin_addr, 4);
    }

    /* nginx has counted its bytes already */

    relay->session->received -= datagram.len;

    ngx_stream_tun_relay_to_upstream(relay, &datagram);
}


static void
ngx_stream_tun_relay_client_handler(ngx_event_t *rev)
{
    ngx_connection_t        *c;
    ngx_tun_datagram_t       datagram;
    ngx_stream_tun_ctx_t    *ctx;
    ngx_stream_session_t    *s;
    ngx_stream_tun_relay_t  *relay;

    c = rev->data;
    s = c->data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);
    relay = ctx->relay;

    if (c->close || rev->timedout) {
        ngx_stream_tun_relay_finalize(relay, NGX_STREAM_OK);
        return;
    }

    while (ngx_tun_recv_datagram(c, &datagram) == NGX_OK) {
        ngx_stream_tun_relay_to_upstream(relay, &datagram);
    }
}


static void
ngx_stream_tun_relay_to_upstream(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    ngx_stream_tun_relay_peer_t  *peer;

    relay->sent++;
    relay->session->received += datagram->len;

    peer = relay->last_peer;

    if (peer == NULL
        || relay->last.port != datagram->port
        || ngx_memcmp(relay->last.addr, datagram->addr, 16) != 0)
    {
        peer = ngx_stream_tun_relay_remember(relay, datagram);

        if (peer == NULL) {
            ngx_tun_refuse_datagram(relay->session->connection, datagram,
                                    NGX_TUN_ICMP_HOST_UNREACHABLE);
            return;
        }

        relay->last = *datagram;
        relay->last_peer = peer;
    }

    if (relay->associate != NULL) {
        ngx_stream_tun_associate_send(relay, peer->name, datagram);
        return;
    }

    if (peer->name != NULL) {
        ngx_stream_tun_relay_send_name(peer->name, datagram);
        return;
    }

    ngx_stream_tun_relay_send(relay, datagram);
}


void
ngx_stream_tun_relay_finalize(ngx_stream_tun_relay_t *relay, ngx_uint_t rc)
{
    ngx_stream_session_t  *s;

    s = relay->session;

    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "udp relay done, datagrams from/to client:%ui/%ui"
                  ", bytes from/to client:%O/%O, peers:%ui, filtered:%ui",
                  relay->sent, relay->received, s->received,
                  s->connection->sent, relay->peers_seen, relay->filtered);

    ngx_stream_tun_relay_forget_names(relay);
    ngx_stream_tun_relay_close(relay);
    ngx_stream_tun_associate_close(relay);

    ngx_stream_finalize_session(s, rc);
}


ngx_uint_t
ngx_stream_tun_relay_known(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    ngx_stream_tun_relay_peer_t  key;

    ngx_stream_tun_relay_key(relay, datagram, &key);

    return ngx_stream_tun_relay_find(relay, &key) != NULL;
}


ngx_uint_t
ngx_stream_tun_relay_accepts(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    ngx_stream_tun_relay_peer_t  *peer, key;

    if (relay->filtering == NGX_STREAM_TUN_RELAY_INDEPENDENT
        && ngx_queue_empty(&relay->names))
    {
        relay->received++;
        return 1;
    }

    ngx_stream_tun_relay_key(relay, datagram, &key);

    peer = ngx_stream_tun_relay_find(relay, &key);

    if (peer != NULL && peer->name != NULL) {
        ngx_memcpy(datagram->addr, peer->name->fake, 16);
    }

    if (peer != NULL || relay->filtering == NGX_STREAM_TUN_RELAY_INDEPENDENT) {
        relay->received++;
        return 1;
    }

    relay->filtered++;

    return 0;
}


static ngx_stream_tun_relay_peer_t *
ngx_stream_tun_relay_remember(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    ngx_stream_tun_relay_peer_t  *peer, key;

    ngx_stream_tun_relay_key(relay, datagram, &key);

    peer = ngx_stream_tun_relay_find(relay, &key);

    if (peer != NULL) {
        ngx_queue_remove(&peer->queue);
        ngx_queue_insert_tail(&relay->peers, &peer->queue);
        return peer;
    }

    if (ngx_stream_tun_relay_resolve(relay, &key, datagram) != NGX_OK) {
        return NULL;
    }

    relay->peers_seen++;

    return ngx_stream_tun_relay_add(relay, &key);
}


void
ngx_stream_tun_relay_alias(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_name_t *name, uint16_t port)
{
    ngx_tun_datagram_t            datagram;
    ngx_stream_tun_relay_peer_t  *peer, key;

    ngx_memcpy(datagram.addr, name->addr, 16);
    datagram.port = port;

    ngx_stream_tun_relay_key(relay, &datagram, &key);
    key.name = name;

    peer = ngx_stream_tun_relay_find(relay, &key);

    if (peer != NULL) {
        peer->name = name;
        return;
    }

    (void) ngx_stream_tun_relay_add(relay, &key);
}


static ngx_stream_tun_relay_peer_t *
ngx_stream_tun_relay_add(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_peer_t *key)
{
    ngx_stream_tun_relay_peer_t  *peer;

    peer = ngx_stream_tun_relay_new_peer(relay);
    if (peer == NULL) {
        return NULL;
    }

    *peer = *key;

    ngx_rbtree_insert(&relay->rbtree, &peer->node);
    ngx_queue_insert_tail(&relay->peers, &peer->queue);

    relay->npeers++;

    return peer;
}


static void
ngx_stream_tun_relay_key(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram, ngx_stream_tun_relay_peer_t *key)
{
    uint32_t  hash;

    key->port = (relay->filtering == NGX_STREAM_TUN_RELAY_ADDRESS)
                ? 0 : datagram->port;
    ngx_memcpy(key->addr, datagram->addr, 16);

    ngx_crc32_init(hash);
    ngx_crc32_update(&hash, key->addr, 16);
    ngx_crc32_update(&hash, (u_char *) &key->port, 2);
    ngx_crc32_final(hash);

    key->node.key = hash;
    key->name = NULL;
}


static ngx_stream_tun_relay_peer_t *
ngx_stream_tun_relay_find(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_peer_t *key)
{
    ngx_int_t           rc;
    ngx_rbtree_node_t  *node, *sentinel;

    node = relay->rbtree.root;
    sentinel = relay->rbtree.sentinel;

    while (node != sentinel) {
        rc = ngx_stream_tun_relay_cmp(&key->node, node);

        if (rc == 0) {
            return (ngx_stream_tun_relay_peer_t *) node;
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return NULL;
}


static void
ngx_stream_tun_relay_insert(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t  **p;

    for ( ;; ) {
        p = (ngx_stream_tun_relay_cmp(node, temp) < 0) ? &temp->left
                                                       : &temp->right;

        if (*p == sentinel) {
            break;
        }

        temp = *p;
    }

    *p = node;
    node->parent = temp;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


static ngx_int_t
ngx_stream_tun_relay_cmp(ngx_rbtree_node_t *one, ngx_rbtree_node_t *two)
{
    ngx_stream_tun_relay_peer_t  *first, *second;

    if (one->key != two->key) {
        return (one->key < two->key) ? -1 : 1;
    }

    first = (ngx_stream_tun_relay_peer_t *) one;
    second = (ngx_stream_tun_relay_peer_t *) two;

    if (first->port != second->port) {
        return (first->port < second->port) ? -1 : 1;
    }

    return ngx_memcmp(first->addr, second->addr, 16);
}


static ngx_stream_tun_relay_peer_t *
ngx_stream_tun_relay_new_peer(ngx_stream_tun_relay_t *relay)
{
    ngx_queue_t                  *q;
    ngx_stream_tun_relay_peer_t  *peer;

    if (relay->npeers < NGX_STREAM_TUN_RELAY_PEERS) {
        return ngx_palloc(relay->session->connection->pool,
                          sizeof(ngx_stream_tun_relay_peer_t));
    }

    q = ngx_queue_head(&relay->peers);
    peer = ngx_queue_data(q, ngx_stream_tun_relay_peer_t, queue);

    ngx_queue_remove(q);
    ngx_rbtree_delete(&relay->rbtree, &peer->node);

    if (relay->last_peer == peer) {
        relay->last_peer = NULL;
    }

    relay->npeers--;

    return peer;
}


static ngx_int_t
ngx_stream_tun_relay_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_uint_t               value;
    ngx_stream_tun_ctx_t    *ctx;
    ngx_stream_tun_relay_t  *relay;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    if (ctx == NULL || ctx->relay == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    relay = ctx->relay;

    switch (data) {

    case NGX_STREAM_TUN_RELAY_NPEERS:
        value = relay->peers_seen;
        break;

    case NGX_STREAM_TUN_RELAY_SENT:
        value = relay->sent;
        break;

    case NGX_STREAM_TUN_RELAY_RECEIVED:
        value = relay->received;
        break;

    default: /* NGX_STREAM_TUN_RELAY_FILTERED */
        value = relay->filtered;
        break;
    }

    v->data = ngx_pnalloc(s->connection->pool, NGX_INT_T_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_sprintf(v->data, "%ui", value) - v->data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
