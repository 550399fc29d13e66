{{- define "plane.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "plane.labels" -}}
app.kubernetes.io/name: plane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "plane.controllerUrl" -}}
http://{{ .Release.Name }}-controller:8080
{{- end }}

{{- define "plane.liveness" -}}
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- define "plane.readiness" -}}
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  # A database has five seconds to respond.
  timeoutSeconds: 6
  failureThreshold: 2
{{- end }}

{{- define "plane.drain" -}}
# Kubernetes goes on sending connections for some seconds after it has decided to stop a pod: they must still be accepted.
lifecycle:
  preStop:
    exec: {command: [sleep, "10"]}
{{- end }}

{{- define "plane.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
