{{/*
Everything the pods of all roles share. Takes (dict "root" $ "role" "worker").
*/}}
{{- define "fault-adapter.pod" -}}
{{- $values := index .root.Values .role -}}
metadata:
  labels:
    {{- include "fault-adapter.podLabels" (dict "root" .root "role" .role "more" $values.podLabels) | nindent 4 }}
    # Pods of jobs and tests bear the release's labels too, and have nothing to tell.
    fault-adapter/telemetry: "true"
  annotations:
    {{- mergeOverwrite (dict "kubectl.kubernetes.io/default-container" .role) (default dict $values.podAnnotations) | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ include "fault-adapter.name" .root }}-{{ .role }}
  {{- include "fault-adapter.podDefaults" .root | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "fault-adapter.grace" . }}
  {{- if .root.Values.topologySpreadConstraints.enabled }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "fault-adapter.selector" $ | nindent 10 }}
      matchLabelKeys: [{{ if include "fault-adapter.stateful" $ }}controller-revision-hash{{ else }}pod-template-hash{{ end }}]
    {{- end }}
  {{- end }}
  {{- with include "fault-adapter.place" $values }}{{ nindent 2 . }}{{ end }}
  containers:
    - name: {{ .role }}
      args: [{{ .role }}]
      {{- include "fault-adapter.container" .root | nindent 6 }}
      env:
        {{- include "fault-adapter.env" . | nindent 8 }}
      ports:
        - {name: telemetry, containerPort: {{ include "fault-adapter.telemetryPort" . }}}
        {{- if eq .role "server" }}
        - {name: notifications, containerPort: {{ include "fault-adapter.serverPort" .root }}}
        {{- end }}
      # Kafka and registry may be late at a start: the log says what is waited for.
      startupProbe:
        httpGet: {path: /health/ready, port: telemetry}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 300
      livenessProbe:
        httpGet: {path: /health/live, port: telemetry}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /health/ready, port: telemetry}
        periodSeconds: 5
        timeoutSeconds: 3
      {{- if eq .role "server" }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $values.drainSeconds }}}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        {{- include "fault-adapter.volumeMounts" . | nindent 8 }}
  volumes:
    {{- include "fault-adapter.volumes" . | nindent 4 }}
{{- end -}}

{{/* Whose a pod of `helm test` is, and that it is one. Takes (dict "root" $ "name" "query"), perhaps with more "annotations". */}}
{{- define "fault-adapter.testMetadata" -}}
metadata:
  name: {{ include "fault-adapter.name" .root }}-test-{{ .name }}
  labels:
    {{- include "fault-adapter.labels" (dict "root" .root "role" "test" "more" .root.Values.setup.podLabels) | nindent 4 }}
  annotations:
    {{- $own := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation" }}
    {{- merge $own (default dict .annotations) (default dict .root.Values.setup.podAnnotations) | toYaml | nindent 4 }}
{{- end -}}

{{/* What every pod of the chart has, whatever runs in it: the restricted profile, and no word from the cluster. */}}
{{- define "fault-adapter.podDefaults" -}}
automountServiceAccountToken: false
# Variables of Services would begin with ADAPTER_ in a release of that name, and stop the start as unknown settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- if not .Values.openshift }}
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* On which nodes. Takes the values of a role, or of the set-up. */}}
{{- define "fault-adapter.place" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fault-adapter.container" -}}
image: {{ include "fault-adapter.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "fault-adapter.env" -}}
{{- $certificate := "" -}}
{{- if has .role (list "worker" "server") -}}{{- $certificate = include "fault-adapter.certificate" . -}}{{- end -}}
{{- range $name, $value := include "fault-adapter.settings" . | fromYaml }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if and (eq .role "worker") $certificate }}
- {name: ADAPTER_SUPPLIER__TLS__CERTIFICATE, value: /etc/fault-adapter/certificate/tls.crt}
- {name: ADAPTER_SUPPLIER__TLS__KEY, value: /etc/fault-adapter/certificate/tls.key}
{{- with .root.Values.worker.tls.caKey }}
- {name: ADAPTER_SUPPLIER__TLS__CA, value: /etc/fault-adapter/certificate/{{ . }}}
{{- end }}
{{- end }}
{{- if and (eq .role "server") $certificate }}
- {name: ADAPTER_SERVER__TLS__CERTIFICATE, value: /etc/fault-adapter/certificate/tls.crt}
- {name: ADAPTER_SERVER__TLS__KEY, value: /etc/fault-adapter/certificate/tls.key}
- {name: ADAPTER_SERVER__TLS__CA, value: /etc/fault-adapter/client-ca/{{ .root.Values.server.tls.clientCaKey }}}
{{- end }}
{{- if and (eq .role "server") .root.Values.server.spool.enabled }}
- {name: ADAPTER_SERVER__SPOOL__PATH, value: /var/lib/fault-adapter/spool.db}
{{- end }}
{{- if and (eq .role "projector") .root.Values.projector.store.enabled }}
- {name: ADAPTER_PROJECTOR__STORE, value: /var/lib/fault-adapter/tickets}
{{- end }}
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fault-adapter.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $_ := .root.Values.mounts }}
- {name: mount-{{ $name }}, mountPath: /etc/fault-adapter/{{ $name }}, readOnly: true}
{{- end }}
{{- if has .role (list "worker" "server") }}
{{- if include "fault-adapter.certificate" . }}
- {name: certificate, mountPath: /etc/fault-adapter/certificate, readOnly: true}
{{- if eq .role "server" }}
- {name: client-ca, mountPath: /etc/fault-adapter/client-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end }}
{{- if or (and (eq .role "server") .root.Values.server.spool.enabled) (and (eq .role "projector") .root.Values.projector.store.enabled) }}
- {name: data, mountPath: /var/lib/fault-adapter}
{{- end }}
{{- end -}}

{{- define "fault-adapter.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ if .role }}{{ (index .root.Values .role).scratch }}{{ else }}16Mi{{ end }}}
{{- range $name, $from := .root.Values.mounts }}
- name: mount-{{ $name }}
  {{- if $from.secret }}
  secret: {secretName: {{ $from.secret }}, defaultMode: 0440}
  {{- else if $from.csi }}
  csi:
    {{- toYaml $from.csi | nindent 4 }}
  {{- else }}
  configMap: {name: {{ $from.configMap }}, defaultMode: 0440}
  {{- end }}
{{- end }}
{{- if has .role (list "worker" "server") }}
{{- with include "fault-adapter.certificate" . }}
- name: certificate
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- if eq $.role "server" }}
- name: client-ca
  secret:
    secretName: {{ default . $.root.Values.server.tls.clientCaSecret }}
    defaultMode: 0440
    items: [{key: {{ $.root.Values.server.tls.clientCaKey }}, path: {{ $.root.Values.server.tls.clientCaKey }}}]
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .role "server") .root.Values.server.spool.enabled (eq .root.Values.server.spool.kind "emptyDir") }}
- name: data
  emptyDir: {sizeLimit: {{ .root.Values.server.spool.size }}}
{{- end }}
{{- end -}}

{{/* Seconds from the wish to stop to the kill: what the role takes by its settings, and half a minute to leave its groups. */}}
{{- define "fault-adapter.grace" -}}
{{- $settings := include "fault-adapter.settings" . | fromYaml -}}
{{- $takes := default "10s" (index $settings "ADAPTER_KAFKA__TRANSACTION_TIMEOUT") -}}
{{- $pause := 0 -}}
{{- if eq .role "worker" -}}{{- $takes = default "1m" (index $settings "ADAPTER_WORKER__STOP_TIMEOUT") -}}{{- end -}}
{{- if eq .role "server" -}}
{{- $takes = default "20s" (index $settings "ADAPTER_SERVER__STOP_TIMEOUT") -}}
{{- $pause = .root.Values.server.drainSeconds -}}
{{- end -}}
{{- add (include "fault-adapter.seconds" $takes) $pause 30 -}}
{{- end -}}

{{/* A duration as settings have it, in whole seconds. */}}
{{- define "fault-adapter.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- mulf (regexFind "^[0-9.]+" .) (index $units (default "s" (regexFind "[a-z]+$" .))) | ceil | int64 -}}
{{- end -}}

{{/* A size as settings or Kubernetes have it, in bytes. */}}
{{- define "fault-adapter.bytes" -}}
{{- $units := dict "k" 1e3 "ki" 1024.0 "m" 1e6 "mi" 1048576.0 "g" 1e9 "gi" 1073741824.0 "t" 1e12 "ti" 1099511627776.0 "p" 1e15 "pi" 1125899906842624.0 "e" 1e18 "ei" 1152921504606846976.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" . | trimSuffix "B" | lower -}}
{{- mulf (regexFind "^[0-9.]+" .) (ternary 1.0 (index $units $unit) (empty $unit)) | int64 -}}
{{- end -}}

{{/* Not empty if the role's pods have a claim each. */}}
{{- define "fault-adapter.stateful" -}}
{{- if and (eq .role "server") .root.Values.server.spool.enabled (eq .root.Values.server.spool.kind "volumeClaim") -}}spool
{{- else if and (eq .role "projector") .root.Values.projector.store.enabled -}}store
{{- end -}}
{{- end -}}

{{- define "fault-adapter.telemetryPort" -}}
{{- $settings := include "fault-adapter.settings" . | fromYaml -}}
{{- default "9464" (index $settings "ADAPTER_TELEMETRY__PORT") -}}
{{- end -}}

{{- define "fault-adapter.serverPort" -}}
{{- $settings := include "fault-adapter.settings" (dict "root" . "role" "server") | fromYaml -}}
{{- default "8443" (index $settings "ADAPTER_SERVER__PORT") -}}
{{- end -}}
